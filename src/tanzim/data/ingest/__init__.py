"""Sources of many kinds become rows, and rows become examples."""
