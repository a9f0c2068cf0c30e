"""The learning rate of every step: linear warm-up, then one of four forms.

- linear: falls in a straight line to 0. The default: no key to set, and hard to beat in fine-tuning.
- cosine: falls along half a cosine, slowly at first and at the end (Loshchilov and Hutter 2016,
  arXiv:1608.03983).
- wsd: warm-up, stable, decay: stays at the peak and falls in a straight line over the last
  ``train.decay_share`` of all steps (Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024,
  arXiv:2405.18392). Prefer it where the length of the run is not settled: the stable part can go on.
- constant: stays at the peak.
"""

from __future__ import annotations

import math

from tanzim.train.config import TrainConfig


def warmup_steps(config: TrainConfig, total_steps: int) -> int:
    """Return the steps of linear rise: as configured, or 3 % of all steps."""
    return int(0.03 * total_steps) if config.warmup_steps is None else config.warmup_steps


def learning_rate(step: int, config: TrainConfig, total_steps: int) -> float:
    """Return the learning rate of the optimiser step with number ``step``.

    The same values as transformers' ``get_{linear,cosine,constant}_schedule_with_warmup`` and
    ``get_wsd_schedule`` with its linear decay.

    Args:
        step: how many optimiser steps were made before this one (from 0).
        config: peak, warm-up and form.
        total_steps: optimiser steps of the whole run.

    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    start = warmup
    if config.schedule == "wsd":
        start = max(warmup, total_steps - decay_steps(config, total_steps))
    done = min(1.0, max(0, step - start) / max(1, total_steps - start))
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0 - done
    return config.learning_rate * left


def decay_steps(config: TrainConfig, total_steps: int) -> int:
    """Return over how many steps wsd falls: at least one."""
    return max(1, round(config.decay_share * total_steps))
