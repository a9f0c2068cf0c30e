"""The diagnosis of synthetic curves whose pattern is known, over noise and seeds."""

import numpy as np
import pytest

from tanzim.core.records import Json
from tanzim.evaluate.curves import diagnose

SEEDS = range(8)
STEPS = 200


def lines(train: np.ndarray, evals: np.ndarray | None = None, every: int = 20) -> list[Json]:
    made = [{"kind": "train", "step": i + 1, "loss": float(loss)} for i, loss in enumerate(train)]
    for i, loss in enumerate([] if evals is None else evals):
        made.append({"kind": "eval", "step": (i + 1) * every, "loss": float(loss)})
    made.append({"kind": "event", "step": STEPS, "message": "done"})
    return sorted(made, key=lambda line: line["step"])


def decay(start: float, end: float, rate: float, steps: int = STEPS) -> np.ndarray:
    return end + (start - end) * np.exp(-rate * np.arange(steps) / steps)


def noisy(curve: np.ndarray, share: float, seed: int) -> np.ndarray:
    return curve * (1 + share * np.random.default_rng(seed).normal(size=len(curve)))


def at_evals(curve: np.ndarray) -> np.ndarray:
    return curve[19::20]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("start", "end"), [(3.0, 1.0), (1.2, 1.0), (3.0, 0.01), (8.0, 0.4)])
def test_healthy(start: float, end: float, seed: int) -> None:
    curve = decay(start, end, 10)
    found = diagnose(lines(noisy(curve, 0.08, seed), noisy(at_evals(curve) + 0.02, 0.003, seed)))
    assert found.verdict == "healthy"
    assert found.evidence["drop"] == pytest.approx(1 - end / start, abs=0.25)


@pytest.mark.parametrize("seed", SEEDS)
def test_healthy_but_still_falling_says_so(seed: int) -> None:
    curve = np.linspace(3.0, 1.5, STEPS)
    found = diagnose(lines(noisy(curve, 0.05, seed), at_evals(curve)))
    assert found.verdict == "healthy"
    assert "still falling" in found.summary
    assert "longer" in found.advice[0]
    plateau = decay(3.0, 1.0, 15)
    assert "levelled off" in diagnose(lines(noisy(plateau, 0.05, seed), at_evals(plateau))).summary


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lift", [0.3, 1.5])
def test_over_fitting_names_the_best_step(lift: float, seed: int) -> None:
    steps = np.arange(STEPS) / STEPS
    evals = at_evals(1.2 + (steps - 0.4) ** 2 * lift / 0.36)
    found = diagnose(lines(noisy(decay(2.5, 0.2, 4), 0.08, seed), noisy(evals, 0.002, seed)))
    assert found.verdict == "over-fitting"
    assert found.evidence["eval_best_step"] == pytest.approx(80, abs=20)
    assert "memorises" in found.summary


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("end", [3.0, 2.95])
def test_under_fitting(end: float, seed: int) -> None:
    curve = np.linspace(3.0, end, STEPS)
    found = diagnose(lines(noisy(curve, 0.05, seed), noisy(at_evals(curve), 0.002, seed)))
    assert found.verdict == "under-fitting"
    assert "learning_rate" in found.advice[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_fluctuation_of_training_or_validation(seed: int) -> None:
    curve = decay(3.0, 1.5, 5)
    assert diagnose(lines(noisy(curve, 0.6, seed))).verdict == "fluctuation"
    swinging = at_evals(curve) + 0.4 * (-1.0) ** np.arange(10)
    assert diagnose(lines(noisy(curve, 0.05, seed), swinging)).verdict == "fluctuation"
    rising = diagnose(lines(noisy(np.linspace(3, 6, STEPS), 0.05, seed)))
    assert rising.verdict == "fluctuation"
    assert "rose" in rising.summary


@pytest.mark.parametrize("steps", [0, 1, 19])
def test_too_early(steps: int) -> None:
    assert diagnose(lines(decay(3.0, 1.0, 5, steps))).verdict == "too early to tell"


def test_a_lone_spike_is_no_fluctuation() -> None:
    curve = noisy(decay(3.0, 1.0, 8), 0.05, 0)
    curve[100] = 12.0
    assert diagnose(lines(curve)).verdict == "healthy"


def test_a_tiny_loss_that_doubles_is_no_over_fitting() -> None:
    evals = np.array([0.5, 0.1, 0.03, 0.012, 0.01, 0.012, 0.011, 0.013, 0.015, 0.02])
    assert diagnose(lines(noisy(decay(3.0, 0.001, 12), 0.1, 0), evals)).verdict == "healthy"


def test_without_validation_the_advice_is_to_have_one() -> None:
    found = diagnose(lines(noisy(decay(3.0, 1.0, 15), 0.05, 1)))
    assert found.verdict == "healthy"
    assert "validation" in found.advice[0]
