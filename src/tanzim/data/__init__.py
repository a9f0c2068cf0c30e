"""Stage 1: text in, text out. Reads, recognises, converts, splits. No tokens, no torch."""
