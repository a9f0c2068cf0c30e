"""The learning rate of every step: linear warm-up, then linear, cosine or no decay."""

from __future__ import annotations

import math
from collections.abc import Callable

from tanzim.train.config import TrainConfig


def warmup_steps(config: TrainConfig, total_steps: int) -> int:
    """Return the steps of linear rise: as configured, or 3 % of all steps."""
    return int(0.03 * total_steps) if config.warmup_steps is None else config.warmup_steps


def learning_rate(step: int, config: TrainConfig, total_steps: int) -> float:
    """Return the learning rate of the optimiser step with number ``step``.

    The same values as transformers' ``get_{linear,cosine,constant}_schedule_with_warmup``.

    Args:
        step: how many optimiser steps were made before this one (from 0).
        config: peak, warm-up and form.
        total_steps: optimiser steps of the whole run.

    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * _DECAY[config.schedule](min(1.0, done))


# Share of the peak left when a share of the decay is done.
_DECAY: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}
