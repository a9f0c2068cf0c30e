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
    assert found.verdict == "late over-fitting"
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


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rising_loss_means_too_high_a_rate(seed: int) -> None:
    rising = diagnose(lines(noisy(np.linspace(3, 6, STEPS), 0.05, seed)))
    assert rising.verdict == "learning rate too high"
    assert "rose" in rising.summary
    assert "lower train.learning_rate" in rising.advice[0]
    fallen = np.concatenate([decay(3.0, 1.5, 8, 80), np.linspace(1.5, 2.6, 120)])
    found = diagnose(lines(noisy(fallen, 0.05, seed)))
    assert found.verdict == "learning rate too high"
    assert found.evidence["lowest_step"] == pytest.approx(80, abs=25)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("falls_to_zero", [False, True])
def test_a_straight_slow_fall_means_too_low_a_rate(falls_to_zero: bool, seed: int) -> None:
    rates = np.linspace(1, 0, STEPS) if falls_to_zero else np.ones(STEPS)
    curve = 3.0 - 0.2 * np.cumsum(rates) / rates.sum()
    made = lines(noisy(curve, 0.02, seed), noisy(at_evals(curve), 1e-4, seed))
    for line, rate in zip((m for m in made if m["kind"] == "train"), rates, strict=True):
        line["learning_rate"] = rate * 1e-5
    found = diagnose(made)
    assert found.verdict == "learning rate too low"
    assert "raise train.learning_rate" in found.advice[0]
    bent = decay(3.0, 2.8, 10)
    made = lines(noisy(bent, 0.02, seed), noisy(at_evals(bent), 1e-4, seed))
    assert diagnose(made).verdict != "learning rate too low"


@pytest.mark.parametrize("seed", SEEDS)
def test_over_fitting_early_or_late(seed: int) -> None:
    steps = np.arange(STEPS) / STEPS
    found = {}
    for best in (0.15, 0.7):
        evals = at_evals(1.2 + (steps - best) ** 2)
        found[best] = diagnose(lines(noisy(decay(2.5, 0.2, 4), 0.05, seed), evals))
    assert [found[best].verdict for best in (0.15, 0.7)] == ["early over-fitting", "late over-fitting"]
    assert "train.learning_rate" in found[0.15].advice[1]
    assert "train.epochs" in found[0.7].advice[1]


def warned(curve: np.ndarray, *kinds: str) -> list[Json]:
    return [*lines(curve), *({"kind": "event", "step": 3, "message": "", "warning": kind} for kind in kinds)]


def test_what_the_run_warned_of_is_named() -> None:
    flat, good = noisy(np.full(STEPS, 3.0), 0.02, 0), noisy(decay(3.0, 1.0, 8), 0.02, 0)
    assert diagnose(warned(flat, "exploding gradients")).verdict == "exploding gradients"
    assert diagnose(warned(flat, "vanishing gradients")).verdict == "vanishing gradients"
    assert diagnose(warned(good, "exploding gradients", "vanishing gradients")).verdict == "healthy"
    assert diagnose(warned(good, *["exploding gradients"] * 3)).verdict == "exploding gradients"
    assert diagnose(warned(good, "loss spike")).verdict == "healthy"
    assert diagnose(warned(good, "loss spike", "loss spike")).verdict == "loss spikes"
    stopped = diagnose(warned(np.linspace(3, 20, 8), "loss exploded"))
    assert stopped.verdict == "learning rate too high"
    assert "range-test" in stopped.advice[0]
