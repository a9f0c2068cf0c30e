"""Bootstrap confidence intervals of any metric that is a function of sums over items.

Shapes: N items, R resamples, S sums. A metric is a row of S numbers per item and a function from
their sums to the value: a mean is (x, 1) → Σx / Σ1; macro-F1 is (hits, predicted, true) per label.
Resampling is then one matrix product, and two systems are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]

LEVEL = 0.95
# Below this the bootstrap knows too little: three equal differences would make an interval of width 0.
FEWEST_ITEMS = 10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval, over so many items."""

    value: float
    low: float
    high: float
    items: int


def resample(items: int, resamples: int, seed: int) -> Floats:
    """Return how often each item is drawn in each resample, [R, N] (Efron 1979).

    Args:
        items: N.
        resamples: R.
        seed: the draw is repeatable.

    """
    drawn = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=resamples)
    return drawn.astype(np.float64)


def mean(sums_RS: Floats) -> Floats:
    """Return Σx / Σ1 from rows (Σx, Σ1)."""
    return sums_RS[:, 0] / sums_RS[:, 1]


def f1(sums_RS: Floats) -> Floats:
    """Return 2·hits / (said + true) from rows (hits, said, true); 0 where there is nothing."""
    average: Floats = 2 * sums_RS[:, 0] / np.maximum(sums_RS[:, 1] + sums_RS[:, 2], 1)
    return average


def macro_f1(sums_RS: Floats) -> Floats:
    """Return the mean F1 over labels from rows of (hits, predicted, true) per label.

    Labels that no reference of the resample has are left out of the mean, so that a rare label that
    was not drawn counts neither as 0 nor as 1.
    """
    hits, predicted, true = np.moveaxis(sums_RS.reshape(len(sums_RS), -1, 3), 2, 0)
    f1 = 2 * hits / np.maximum(predicted + true, 1)
    present = true > 0
    average: Floats = (f1 * present).sum(1) / present.sum(1)
    return average


def label_rows(predictions: Sequence[str | None], references: Sequence[str], labels: Sequence[str]) -> Floats:
    """Return (hit, predicted, true) per item and label, [N, 3 · labels], for `macro_f1`.

    Args:
        predictions: N labels, None where none could be read.
        references: N right labels.
        labels: the closed set.

    """
    predicted = np.array([[p == label for label in labels] for p in predictions], dtype=np.float64)
    true = np.array([[r == label for label in labels] for r in references], dtype=np.float64)
    stacked: Floats = np.stack([predicted * true, predicted, true], axis=2)
    return stacked.reshape(len(predictions), -1)


def interval(rows_NS: Floats, value: Value, *, resamples: int, seed: int) -> Estimate:
    """Return the value over all items with its percentile bootstrap interval (95 %)."""
    drawn = resample(len(rows_NS), resamples, seed)
    return _estimate(value(rows_NS.sum(0, keepdims=True))[0], value(drawn @ rows_NS), len(rows_NS))


def difference(left_NS: Floats, right_NS: Floats, value: Value, *, resamples: int, seed: int) -> Estimate:
    """Return value(left) − value(right) on the same items, with its paired bootstrap interval (95 %)."""
    drawn = resample(len(left_NS), resamples, seed)
    whole = value(left_NS.sum(0, keepdims=True))[0] - value(right_NS.sum(0, keepdims=True))[0]
    return _estimate(whole, value(drawn @ left_NS) - value(drawn @ right_NS), len(left_NS))


def _estimate(whole: np.float64, values_R: Floats, items: int) -> Estimate:
    low, high = np.quantile(values_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(whole), float(low), float(high), items)


def verdict(change: Estimate) -> str:
    """Say in plain words what a paired difference means (higher is better)."""
    if change.items < FEWEST_ITEMS:
        return "too few items to say"
    if change.low > 0:
        return "better"
    return "worse" if change.high < 0 else "no measurable change"
