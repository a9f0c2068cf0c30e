"""Hyper-parameter search over a callable: it knows parameters, reports and a value, nothing of training."""
