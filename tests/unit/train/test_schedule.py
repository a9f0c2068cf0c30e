from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from tanzim.train.config import TrainConfig
from tanzim.train.schedule import learning_rate, warmup_steps

NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 20), (10, 10), (15, 10), (0, 1), (None, 200)])
def test_every_step_equals_transformers(schedule: str, warmup: int | None, total: int) -> None:
    config = TrainConfig(schedule=schedule, warmup_steps=warmup, learning_rate=3e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)
    reference = get_scheduler(
        NAMES[schedule],
        optimizer,
        num_warmup_steps=warmup_steps(config, total),
        num_training_steps=total,
    )
    for step in range(total):
        assert learning_rate(step, config, total) == pytest.approx(
            reference.get_last_lr()[0], rel=1e-12, abs=1e-18
        )
        optimizer.step()
        reference.step()
