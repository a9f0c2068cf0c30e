"""Bootstrap confidence intervals of any metric that is a function of sums over items.

Shapes: N items, R resamples, S sums. A metric is a row of S numbers per item and a function from
their sums to the value: a mean is (x, 1) → Σx / Σ1; macro-F1 is (hits, predicted, true) per label.
Resampling is then one matrix product, and two systems are compared on the same resamples. What hangs on
the order of all items (average precision) is no function of sums: it is taken from how often each was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class OfItems:
    """A metric of all items at once.

    Args:
        of: from the items' rows, [N, S], and how often each item counts, [R, N], to R values.

    """

    of: Callable[[Floats, Floats], Floats]


LEVEL = 0.95
_BLOCK = 64  # resamples whose items are looked at together
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


def _average_precision(rows_NS: Floats, counts_RN: Floats) -> Floats:
    """Return the mean over labels of the area under the precision-recall curve, stepwise (no trapezoids).

    Labels that no reference of the resample has are left out of the mean.
    """
    labels = rows_NS.shape[1] // 2
    total, present = np.zeros(len(counts_RN)), np.zeros(len(counts_RN))
    for label in range(labels):
        order = np.argsort(-rows_NS[:, label], kind="stable")
        scores, true = rows_NS[order, label], rows_NS[order, labels + label]
        ends = np.append(np.flatnonzero(np.diff(scores)), len(order) - 1)  # equal scores stand together
        drawn_RN = counts_RN[:, order]
        said_RE = drawn_RN.cumsum(1)[:, ends]
        hits_RE = (drawn_RN * true).cumsum(1)[:, ends]
        gained_RE = np.diff(hits_RE, axis=1, prepend=0)
        all_true = hits_RE[:, -1]
        area = (gained_RE * hits_RE / np.maximum(said_RE, 1)).sum(1) / np.maximum(all_true, 1)
        total += area
        present += all_true > 0
    average: Floats = total / np.maximum(present, 1)
    return average


average_precision = OfItems(_average_precision)


def label_scores(shares_NC: Floats, references: Sequence[str], labels: Sequence[str]) -> Floats:
    """Return the labels' probabilities and which is right, [N, 2 · labels], for `average_precision`."""
    true = np.array([[reference == label for label in labels] for reference in references], np.float64)
    return np.concatenate([shares_NC, true.reshape(len(shares_NC), -1)], axis=1)


def interval(rows_NS: Floats, value: Value | OfItems, *, resamples: int, seed: int) -> Estimate:
    """Return the value over all items with its percentile bootstrap interval (95 %)."""
    drawn = resample(len(rows_NS), resamples, seed)
    whole = _values(value, rows_NS, np.ones((1, len(rows_NS))))[0]
    return _estimate(whole, _values(value, rows_NS, drawn), len(rows_NS))


def difference(
    left_NS: Floats, right_NS: Floats, value: Value | OfItems, *, resamples: int, seed: int
) -> Estimate:
    """Return value(left) − value(right) on the same items, with its paired bootstrap interval (95 %)."""
    drawn, all_once = resample(len(left_NS), resamples, seed), np.ones((1, len(left_NS)))
    whole = _values(value, left_NS, all_once)[0] - _values(value, right_NS, all_once)[0]
    changes = _values(value, left_NS, drawn) - _values(value, right_NS, drawn)
    return _estimate(whole, changes, len(left_NS))


def _values(value: Value | OfItems, rows_NS: Floats, counts_RN: Floats) -> Floats:
    if not isinstance(value, OfItems):
        return value(counts_RN @ rows_NS)
    blocks = range(0, len(counts_RN), _BLOCK)
    return np.concatenate([value.of(rows_NS, counts_RN[start : start + _BLOCK]) for start in blocks])


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
