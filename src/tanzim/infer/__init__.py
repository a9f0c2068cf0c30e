"""Tokens in, tokens out: the one generation engine."""
