"""Tanzim: from raw data to a proven, served, fine-tuned language model on your own hardware."""
