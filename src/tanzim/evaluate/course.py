"""The course of a run's losses as numbers, and what a diagnosis of them is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tanzim.core.records import Json
from tanzim.evaluate.stats import Floats

Verdict = Literal[
    "too early to tell",
    "learning rate too high",
    "learning rate too low",
    "exploding gradients",
    "vanishing gradients",
    "loss spikes",
    "fluctuation",
    "early over-fitting",
    "late over-fitting",
    "under-fitting",
    "healthy",
]


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
class Curve:
    """The losses of a run: training by step, validation by evaluation; warnings by kind; learning rates."""

    steps: Floats
    train: Floats
    eval_steps: Floats
    evals: Floats
    warnings: Mapping[str, int]
    rates: Floats

    @property
    def start(self) -> float:
        """Mean training loss of the first 5 % of the steps (3 at least)."""
        first = float(self.train[: max(3, len(self.train) // 20)].mean())
        return max(first, 1e-9)  # it divides

    @property
    def width(self) -> int:
        """A tenth of the steps (5 at least)."""
        return max(5, len(self.train) // 10)

    @property
    def end(self) -> float:
        """Mean training loss of the last 10 % of the steps (5 at least)."""
        return float(self.train[-self.width :].mean())

    @property
    def straight(self) -> float:
        """The share of the fall that lies between the means of the last two quarters of a straight fall.

        Straight is one in proportion to the learning rate: a quarter if that is constant, an eighth if it
        falls to 0.
        """
        done = np.cumsum(self.rates) / max(float(self.rates.sum()), 1e-300)
        quarter = len(done) // 4
        return float(done[-quarter:].mean() - done[-2 * quarter : -quarter].mean())

    @property
    def swing(self) -> float:
        """Typical jump of the training loss from its course, as a standard deviation.

        From the 90 % quantile of the steps' differences: a few spikes do not matter, many do.
        """
        return float(np.quantile(np.abs(np.diff(self.train)), 0.9)) / (1.645 * math.sqrt(2))

    @property
    def lowest(self) -> tuple[float, float]:
        """The lowest mean training loss over a tenth of the steps (5 at least), and the step it ends at."""
        means = np.convolve(self.train, np.full(self.width, 1 / self.width), mode="valid")
        at = int(means.argmin())
        return float(means[at]), float(self.steps[at + self.width - 1])


def read(metrics: Sequence[Json]) -> Curve:
    """Take the losses and the warnings out of the lines of ``metrics.jsonl``."""
    lines = {kind: [m for m in metrics if m["kind"] == kind] for kind in ("train", "eval")}
    arrays = [
        np.array([line[key] for line in lines[kind]], dtype=np.float64)
        for kind in ("train", "eval")
        for key in ("step", "loss")
    ]
    warned = Counter(str(line["warning"]) for line in metrics if "warning" in line)
    rates = np.array([line.get("learning_rate", 1.0) for line in lines["train"]], dtype=np.float64)
    steps, train, eval_steps, evals = arrays
    return Curve(steps, train, eval_steps, evals, warned, rates)


def evidence(curve: Curve) -> dict[str, float]:
    """Return the numbers of a curve by name (losses in nats per token, shares of the loss at the start)."""
    quarter = len(curve.train) // 4
    parts = [float(part.mean()) for part in (curve.train[-2 * quarter : -quarter], curve.train[-quarter:])]
    numbers = {
        "steps": float(len(curve.train)),
        "train_start": curve.start,
        "train_end": curve.end,
        "drop": (curve.start - curve.end) / curve.start,
        "last_quarter_drop": (parts[0] - parts[1]) / curve.start,
        # Two standard errors of that difference: what noise alone can make of it.
        "last_quarter_noise": 2 * curve.swing * math.sqrt(2 / quarter) / curve.start,
        "swing": curve.swing / curve.start,
        "rebound": (curve.end - curve.lowest[0]) / curve.start,
        # Four standard errors of a mean of as many steps: the lowest of many means is low by chance, too.
        "rebound_noise": 4 * curve.swing / math.sqrt(curve.width) / curve.start,
    }
    if len(curve.evals):
        best = int(curve.evals.argmin())
        numbers |= {
            "eval_best": float(curve.evals[best]),
            "eval_best_step": float(curve.eval_steps[best]),
            "eval_last": float(curve.evals[-1]),
            "eval_rise": float(curve.evals[-1] - curve.evals[best]),
            "gap": float(curve.evals[-1]) - curve.end,
        }
    return numbers
