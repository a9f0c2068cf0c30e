"""Stage 2: find and load a model; the one renderer from conversation to tokens and loss weights."""
