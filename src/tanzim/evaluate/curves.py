"""What the loss curve says, in words: the patterns of the guide's chapter 7.3–7.5 as rules with numbers.

Training losses are of one step each, so noisy; validation losses are of the same examples each time.
All thresholds are shares of the loss at the start: a loss that fell from 3 to 0.02 may double without
meaning, one that stands at 3 may not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tanzim.core.records import Json
from tanzim.evaluate.stats import Floats

Verdict = Literal["too early to tell", "fluctuation", "over-fitting", "under-fitting", "healthy"]

# Two means of at least 3 steps with a trend between them need about this many.
FEWEST_STEPS = 20
# Steps of some 2,000 tokens differ by 3–10 % among themselves; a fifth is more than their contents explain.
LARGE_SWING = 0.2
# The validation examples do not change: between evaluations 5 % up and down again is the weights' doing.
LARGE_TURN = 0.05
# On a plateau validation losses move by about 1 %; three times that is a rise.
RISE = 0.03
RISE_OF_START = 0.01
# Even a well-taught model lowers its loss by 10 % and more on a new task; below 5 % little was learned.
SMALL_DROP = 0.05
# The last quarter of a run that has reached its plateau brings next to nothing.
STILL_FALLING = 0.1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a loss curve shows, the numbers behind it, and what to change.

    Args:
        verdict: the pattern.
        summary: the same as a sentence with its numbers.
        evidence: the numbers by name (losses in nats per token, shares of the loss at the start).
        advice: what to change, the most promising first; empty if nothing.

    """

    verdict: Verdict
    summary: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Curve:
    """The losses of a run: training by step, validation by evaluation."""

    steps: Floats
    train: Floats
    eval_steps: Floats
    evals: Floats

    @property
    def start(self) -> float:
        """Mean training loss of the first 5 % of the steps (3 at least)."""
        first = float(self.train[: max(3, len(self.train) // 20)].mean())
        return max(first, 1e-9)  # it divides

    @property
    def end(self) -> float:
        """Mean training loss of the last 10 % of the steps (5 at least)."""
        return float(self.train[-max(5, len(self.train) // 10) :].mean())

    @property
    def swing(self) -> float:
        """Typical jump of the training loss from its course, as a standard deviation.

        From the 90 % quantile of the steps' differences: a few spikes do not matter, many do.
        """
        return float(np.quantile(np.abs(np.diff(self.train)), 0.9)) / (1.645 * math.sqrt(2))


def diagnose(metrics: Sequence[Json]) -> Diagnosis:
    """Say what pattern the loss curve of a run follows.

    Args:
        metrics: the lines of ``metrics.jsonl``: ``kind`` train or eval, ``step``, ``loss``.

    """
    curve = _read(metrics)
    if len(curve.train) < FEWEST_STEPS:
        return Diagnosis(
            "too early to tell",
            f"{len(curve.train)} steps are too few to tell a trend from noise ({FEWEST_STEPS} are needed).",
            {"steps": float(len(curve.train))},
            ("train for more steps",),
        )
    evidence = _evidence(curve)
    for rule in (_fluctuation, _over_fitting, _under_fitting):
        found = rule(curve, evidence)
        if found:
            return found
    return _healthy(curve, evidence)


def _read(metrics: Sequence[Json]) -> _Curve:
    lines = {kind: [m for m in metrics if m["kind"] == kind] for kind in ("train", "eval")}
    arrays = [
        np.array([line[key] for line in lines[kind]], dtype=np.float64)
        for kind in ("train", "eval")
        for key in ("step", "loss")
    ]
    return _Curve(*arrays)


def _evidence(curve: _Curve) -> dict[str, float]:
    quarter = len(curve.train) // 4
    parts = [float(part.mean()) for part in (curve.train[-2 * quarter : -quarter], curve.train[-quarter:])]
    evidence = {
        "steps": float(len(curve.train)),
        "train_start": curve.start,
        "train_end": curve.end,
        "drop": (curve.start - curve.end) / curve.start,
        "last_quarter_drop": (parts[0] - parts[1]) / curve.start,
        # Two standard errors of that difference: what noise alone can make of it.
        "last_quarter_noise": 2 * curve.swing * math.sqrt(2 / quarter) / curve.start,
        "swing": curve.swing / curve.start,
    }
    if len(curve.evals):
        best = int(curve.evals.argmin())
        evidence |= {
            "eval_best": float(curve.evals[best]),
            "eval_best_step": float(curve.eval_steps[best]),
            "eval_last": float(curve.evals[-1]),
            "eval_rise": float(curve.evals[-1] - curve.evals[best]),
            "gap": float(curve.evals[-1]) - curve.end,
        }
    return evidence


def _turning(curve: _Curve) -> float:
    """Return the median move between evaluations if most moves turn back the one before, else 0."""
    moves = np.diff(curve.evals)
    if len(moves) < 4:
        return 0.0
    turns = np.sign(moves[1:]) != np.sign(moves[:-1])
    return float(np.median(np.abs(moves))) if turns.mean() >= 0.5 else 0.0


def _fluctuation(curve: _Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    turning = _turning(curve) / curve.start
    if evidence["drop"] < -SMALL_DROP:
        what = f"the training loss rose from {curve.start:.3f} to {curve.end:.3f}"
    elif evidence["swing"] > LARGE_SWING:
        what = f"the training loss swings by {evidence['swing']:.0%} of its start from step to step"
    elif turning > LARGE_TURN:
        what = f"the validation loss goes up and down by {turning:.0%} of the start between evaluations"
    else:
        return None
    return Diagnosis(
        "fluctuation",
        f"Unstable: {what}. The learning rate is too high or the gradients are too noisy.",
        {**evidence, "eval_turning": turning},
        (
            "lower train.learning_rate (a third of it)",
            "raise train.tokens_per_step, so that gradients are less noisy",
            "raise train.warmup_steps, or lower train.max_grad_norm",
        ),
    )


def _over_fitting(curve: _Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    if len(curve.evals) < 3:
        return None
    best, rise, best_step = evidence["eval_best"], evidence["eval_rise"], evidence["eval_best_step"]
    since, until = curve.train[curve.steps > best_step], curve.train[curve.steps <= best_step]
    if rise <= max(RISE * best, RISE_OF_START * curve.start) or len(since) < 3 or len(until) < 3:
        return None
    before = float(until[-max(3, len(until) // 4) :].mean())
    if curve.end >= before:
        return None
    return Diagnosis(
        "over-fitting",
        f"Since step {best_step:.0f} the training loss fell on ({before:.3f} → {curve.end:.3f}) while the "
        f"validation loss rose ({best:.3f} → {evidence['eval_last']:.3f}): it memorises.",
        {**evidence, "train_at_best": before},
        (
            f"use the checkpoint of step {best_step:.0f} (the best one is kept); train.patience stops there",
            "fewer train.epochs, or more and more varied data",
            "train.method.dropout=0.05, train.weight_decay=0.01, or a lower train.method.rank",
        ),
    )


def _under_fitting(curve: _Curve, evidence: Mapping[str, float]) -> Diagnosis | None:
    if evidence["drop"] >= SMALL_DROP:
        return None
    return Diagnosis(
        "under-fitting",
        f"The training loss hardly fell ({curve.start:.3f} → {curve.end:.3f}, {evidence['drop']:.1%}): "
        "the model does not learn the data.",
        dict(evidence),
        (
            "raise train.learning_rate (three times it), or train longer",
            "raise train.method.rank, or adapt all-linear layers",
            "look at `tanzim data preview`: are the right tokens trained, and are the answers learnable?",
        ),
    )


def _healthy(curve: _Curve, evidence: Mapping[str, float]) -> Diagnosis:
    falling = evidence["last_quarter_drop"]
    still = falling > max(STILL_FALLING * evidence["drop"], evidence["last_quarter_noise"])
    both = f" and the validation loss to {evidence['eval_last']:.3f}" if len(curve.evals) else ""
    summary = (
        f"The training loss fell from {curve.start:.3f} to {curve.end:.3f} ({evidence['drop']:.0%}){both}"
    )
    if still:
        more = "train longer: more train.epochs or train.max_steps"
        return Diagnosis("healthy", f"{summary}; it was still falling at the end.", dict(evidence), (more,))
    unwatched = () if len(curve.evals) else ("keep a validation split, to see over-fitting",)
    return Diagnosis("healthy", f"{summary} and then levelled off.", dict(evidence), unwatched)
