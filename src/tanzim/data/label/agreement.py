"""How far annotators agree beyond chance.

Legend: A annotators · N items · C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError

Floats = npt.NDArray[np.float64]


def cohen_kappa(
    one: Sequence[str],
    two: Sequence[str],
    *,
    order: Sequence[str] = (),
    weights: Literal["none", "linear", "quadratic"] = "none",
) -> float:
    """Return Cohen's kappa of two annotators: 1 for the same labels, 0 for as much as by chance (1960, 1968).

    Args:
        one: the first one's labels, [N].
        two: the other one's labels of the same items, [N].
        order: the labels from low to high, for weights; unset sorts them by name.
        weights: what a disagreement costs: all the same, or the distance in the order, or its square.

    Raises:
        DataError: there is nothing to compare, or chance alone would agree always.

    """
    if len(one) != len(two) or not one:
        raise DataError(f"{len(one)} labels and {len(two)} cannot be compared", where="agreement")
    labels = list(order) or sorted(set(one) | set(two))
    codes = {label: code for code, label in enumerate(labels)}
    if missing := (set(one) | set(two)) - set(codes):
        raise DataError(f"order does not name: {', '.join(sorted(missing))}", where="agreement")
    table_CC = np.zeros((len(labels), len(labels)))
    np.add.at(table_CC, ([codes[label] for label in one], [codes[label] for label in two]), 1)
    apart_CC = np.abs(np.subtract.outer(np.arange(len(labels)), np.arange(len(labels))))
    cost_CC = {"none": apart_CC > 0, "linear": apart_CC, "quadratic": apart_CC**2}[weights]
    chance_CC = np.outer(table_CC.sum(1), table_CC.sum(0)) / len(one)
    return _beyond_chance((cost_CC * table_CC).sum(), (cost_CC * chance_CC).sum())


def fleiss_kappa(annotations_AN: Sequence[Sequence[str]]) -> float:
    """Return Fleiss' kappa of several annotators who all labelled every item (1971).

    Args:
        annotations_AN: each annotator's labels of the same items, at least two annotators.

    Raises:
        DataError: labels are missing, or chance alone would agree always.

    """
    counts_NC = _counts([list(row) for row in annotations_AN])[0]
    raters = len(annotations_AN)
    if raters < 2 or not len(counts_NC) or (counts_NC.sum(1) != raters).any():
        raise DataError(
            "Fleiss' kappa needs two annotators or more, and a label of each for every item",
            where="agreement",
            fix="take krippendorff_alpha: it allows for labels that are missing",
        )
    same = ((counts_NC**2).sum(1) - raters) / (raters * (raters - 1))
    chance = ((counts_NC.sum(0) / counts_NC.sum()) ** 2).sum()
    return _beyond_chance(1 - same.mean(), 1 - chance)


def krippendorff_alpha(
    annotations_AN: Sequence[Sequence[str | None]],
    *,
    level: Literal["nominal", "ordinal", "interval"] = "nominal",
    order: Sequence[str] = (),
) -> float:
    """Return Krippendorff's alpha; labels may be missing (Krippendorff 2011, "Computing … Reliability").

    Args:
        annotations_AN: each annotator's labels of the same items, None where there is none.
        level: what a disagreement costs: all the same, by rank, or the square of the difference.
        order: the labels from low to high for ordinal; unset sorts them by name.

    Raises:
        DataError: no item has two labels, labels of an interval are no numbers, or all are the same.

    """
    return _alpha(*_paired(annotations_AN, order), level)


def alpha_interval(
    annotations_AN: Sequence[Sequence[str | None]],
    *,
    level: Literal["nominal", "ordinal", "interval"] = "nominal",
    order: Sequence[str] = (),
    draws: int = 1000,
    seed: int = 13,
) -> tuple[float, float]:
    """Return the 95 % interval of Krippendorff's alpha: items are drawn again (percentile bootstrap).

    Draws in which all labels are the same say nothing and are left out.

    Args:
        annotations_AN: each annotator's labels of the same items, None where there is none.
        level: as for `krippendorff_alpha`.
        order: as for `krippendorff_alpha`.
        draws: how many.
        seed: of the draws.

    Raises:
        DataError: as for `krippendorff_alpha`.

    """
    counts_NC, labels = _paired(annotations_AN, order)
    _alpha(counts_NC, labels, level)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn_NC = counts_NC[rng.integers(len(counts_NC), size=len(counts_NC))]
        if (drawn_NC.sum(0) > 0).sum() > 1:
            found.append(_alpha(drawn_NC, labels, level))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _paired(annotations_AN: Sequence[Sequence[str | None]], order: Sequence[str]) -> tuple[Floats, list[str]]:
    """Count the labels of each item that has two or more: one that stands alone agrees with nothing."""
    counts_NC, labels = _counts(annotations_AN, order)
    counts_NC = counts_NC[counts_NC.sum(1) >= 2]
    if not len(counts_NC):
        raise DataError("no item has labels of two annotators", where="agreement")
    return counts_NC, labels


def _alpha(counts_NC: Floats, labels: Sequence[str], level: str) -> float:
    pairs_N = counts_NC.sum(1) - 1
    observed_CC = (counts_NC / pairs_N[:, None]).T @ counts_NC - np.diag(
        (counts_NC / pairs_N[:, None]).sum(0)
    )
    totals_C = observed_CC.sum(1)
    expected_CC = (np.outer(totals_C, totals_C) - np.diag(totals_C)) / (totals_C.sum() - 1)
    cost_CC = _cost(level, labels, totals_C)
    return _beyond_chance((cost_CC * observed_CC).sum(), (cost_CC * expected_CC).sum())


def _counts(
    annotations_AN: Sequence[Sequence[str | None]], order: Sequence[str] = ()
) -> tuple[Floats, list[str]]:
    """Count the labels of each item, [N, C]."""
    if len({len(row) for row in annotations_AN}) != 1:
        raise DataError("annotators have lists of different lengths", where="agreement")
    found = {label for row in annotations_AN for label in row if label is not None}
    labels = list(order) or sorted(found)
    if missing := found - set(labels):
        raise DataError(f"order does not name: {', '.join(sorted(missing))}", where="agreement")
    codes = {label: code for code, label in enumerate(labels)}
    counts_NC = np.zeros((len(annotations_AN[0]), len(labels)))
    for row in annotations_AN:
        for item, label in enumerate(row):
            if label is not None:
                counts_NC[item, codes[label]] += 1
    return counts_NC, labels


def _cost(level: str, labels: Sequence[str], totals_C: Floats) -> Floats:
    if level == "nominal":
        return 1 - np.eye(len(labels))
    if level == "ordinal":  # what lies between two ranks, half of each end: the differences of mid-ranks
        middle_C = np.cumsum(totals_C) - totals_C / 2
        return np.asarray(np.subtract.outer(middle_C, middle_C) ** 2)
    try:
        values_C = np.array([float(label) for label in labels])
    except ValueError as error:
        raise DataError(f"a label of an interval must be a number: {error}", where="agreement") from None
    return np.asarray(np.subtract.outer(values_C, values_C) ** 2)


def _beyond_chance(observed: float, expected: float) -> float:
    """Return 1 − observed / expected disagreement."""
    if expected <= 0:
        raise DataError(
            "all labels are the same: agreement cannot be told from chance",
            where="agreement",
            fix="have more items labelled, of other classes too",
        )
    return float(1 - observed / expected)
