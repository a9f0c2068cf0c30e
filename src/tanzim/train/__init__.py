"""Stages 3 and 4: plan, engine, checkpoints."""
