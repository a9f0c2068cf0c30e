from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import get_wsd_schedule

from tanzim.train.config import TrainConfig
from tanzim.train.schedule import decay_steps, learning_rate, warmup_steps

NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def check(config: TrainConfig, total: int, reference: torch.optim.lr_scheduler.LRScheduler) -> None:
    for step in range(total):
        want = reference.get_last_lr()[0]
        assert learning_rate(step, config, total) == pytest.approx(want, rel=1e-12, abs=1e-18)
        reference.optimizer.step()
        reference.step()


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-3)


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 20), (10, 10), (15, 10), (0, 1), (None, 200)])
def test_every_step_equals_transformers(schedule: str, warmup: int | None, total: int) -> None:
    config = TrainConfig(schedule=schedule, warmup_steps=warmup, learning_rate=3e-3)
    reference = get_scheduler(
        NAMES[schedule],
        optimizer(),
        num_warmup_steps=warmup_steps(config, total),
        num_training_steps=total,
    )
    check(config, total, reference)


@pytest.mark.parametrize("share", [0.1, 0.35, 1.0])
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (3, 20), (None, 200)])
def test_wsd_equals_transformers(share: float, warmup: int | None, total: int) -> None:
    config = TrainConfig(schedule="wsd", warmup_steps=warmup, learning_rate=3e-3, decay_share=share)
    rise = warmup_steps(config, total)
    fall = min(decay_steps(config, total), total - rise)
    reference = get_wsd_schedule(
        optimizer(),
        num_warmup_steps=rise,
        num_decay_steps=fall,
        num_training_steps=total,
        decay_type="linear",
    )
    check(config, total, reference)


def test_the_stable_part_of_wsd_is_stable() -> None:
    config = TrainConfig(schedule="wsd", warmup_steps=5, learning_rate=1e-2)
    rates = [learning_rate(step, config, 100) for step in range(100)]
    assert rates[5:81] == [1e-2] * 76
    assert rates[81] < 1e-2
    assert rates[99] == pytest.approx(1e-2 / 20)
