"""Text made whole, and text that is not worth keeping put aside."""
