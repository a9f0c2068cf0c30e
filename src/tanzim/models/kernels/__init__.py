"""Packed attention per document, and the loss of trained tokens without full logits."""
