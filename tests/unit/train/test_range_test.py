"""The range test: on curves whose answer is known, and against trainings at its rate and far from it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_method

from tanzim.core.errors import TrainError
from tanzim.train.config import TrainConfig
from tanzim.train.range_test import suggest, sweep

RATES = np.geomspace(1e-6, 1, 40).tolist()


def curve(middle: float, rise: float | None, seed: int, noise: float = 0.01) -> list[float]:
    """Return shares that fall around ``middle`` (their steepest place) and rise from ``rise`` on."""
    at = np.log10(RATES)
    shares = 1 - 0.6 / (1 + np.exp(-(at - np.log10(middle)) * 5))
    if rise is not None:
        shares += np.maximum(0, at - np.log10(rise)) ** 2 * 3
    return (shares + noise * np.random.default_rng(seed).normal(size=len(RATES))).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("middle", [3e-4, 1e-3])
def test_the_steepest_place_is_suggested(middle: float, seed: int) -> None:
    found = suggest(RATES, curve(middle, 0.05, seed))
    assert found.suggested is not None
    assert middle / 2.2 <= found.suggested <= middle * 2.2
    assert found.highest is not None
    assert 0.05 <= found.highest <= 0.6
    assert "falls fastest" in found.reason


def test_a_steepest_place_beside_the_rise_gets_a_margin() -> None:
    found = suggest(RATES[:32], [1.0] * 26 + [0.95, 0.4, 0.4, 0.9, 2, 4])
    assert found.highest is not None
    assert found.suggested == pytest.approx(found.highest / 4, rel=0.2)
    assert "margin" in found.reason


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_suggested_where_nothing_is_learnt(seed: int) -> None:
    flat = (1 + 0.005 * np.random.default_rng(seed).normal(size=40)).tolist()
    assert suggest(RATES, flat).suggested is None
    rising = np.linspace(1, 4, 40).tolist()
    assert suggest(RATES, rising).suggested is None


def test_the_suggested_rate_trains_better_than_far_smaller_and_far_larger_ones(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tokens_per_step": 256, "tokens_per_pass": 256, "method": {"type": "full"}}
    tokens = store(tmp_path / "tokens.arrow", documents(60))
    told: list[tuple[int, float, float]] = []
    found = sweep(
        tiny_method(tiny_llama(), type="full"),
        tokens,
        TrainConfig.model_validate(settings),
        seed=5,
        steps=40,
        on_step=lambda *point: told.append(point),
    )
    assert [point[1:] for point in told] == list(zip(found.rates, found.shares, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.arrow"]
    assert found.shares[0] == pytest.approx(1, abs=1e-4)  # the first step's loss is the untouched model's
    assert found.suggested is not None
    ends = {}
    for factor in (0.03, 1.0, 100.0):
        root = tmp_path / str(factor)
        rate = min(1.0, found.suggested * factor)
        with suppress(TrainError):  # the largest may be refused for what it did
            fit(root, model=tiny_llama(), epochs=6, learning_rate=rate, validation_documents=[], **settings)
        ends[factor] = float(np.mean([line["loss"] for line in lines(root, "train")][-5:]))
    assert ends[1.0] < ends[0.03] - 0.3
    assert ends[1.0] < ends[100.0] - 0.3


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    tokens = store(tmp_path / "tokens.arrow", documents(5))
    with pytest.raises(TrainError, match="too few"):
        sweep(tiny_method(), tokens, TrainConfig(), seed=1, steps=3)
