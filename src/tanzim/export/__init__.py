"""Stage 6: exports that prove they equal what was trained."""
