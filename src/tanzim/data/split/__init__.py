"""Training, validation and test sets that share nothing."""
