"""The optimisers, by the name their config gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tanzim.train.config import AdamWConfig, TrainConfig

Groups = list[dict[str, Any]]


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser of ``config`` over ``parameters``, with weight decay on matrices only.

    Args:
        parameters: what is trained, by name.
        config: the ``train`` section.

    """
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer.type]([group for group in groups if group["params"]], config)


def _adamw(groups: Groups, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101): θ ← θ − η·(m̂ / (√v̂ + ε) + λ·θ)."""
    settings = config.optimizer
    assert isinstance(settings, AdamWConfig)
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        # One kernel over a parameter's weight, gradient and moments reads each of them once.
        fused=True,
    )


OPTIMIZERS: dict[str, Callable[[Groups, TrainConfig], torch.optim.Optimizer]] = {"adamw": _adamw}
