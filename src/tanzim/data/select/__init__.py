"""The part of the training data that is worth training on (data-efficient tuning)."""
