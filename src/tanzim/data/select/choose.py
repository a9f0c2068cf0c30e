"""Which examples are kept, given their scores; and what a guess is worth."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Classes = Literal["root", "share"]

_POWER: dict[Classes, float] = {"root": 0.5, "share": 1.0}


def quotas(sizes_C: Codes, count: int, classes: Classes = "share") -> Codes:
    """Divide ``count`` among classes by their sizes or the roots of them, none getting more than it has, [C].

    Whole numbers by the largest remainders (Hamilton's method); by sizes, each is within one of its share.
    """
    count, weights = min(count, int(sizes_C.sum())), sizes_C ** _POWER[classes]
    full = sizes_C == 0
    while True:  # what a class cannot take goes to the others
        left = count - int(sizes_C[full].sum())
        exact = np.where(full, sizes_C, weights * left / max(float(weights[~full].sum()), 1e-12))
        over = ~full & (exact >= sizes_C)
        if not over.any():
            break
        full |= over
    whole = np.floor(exact + 1e-9).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: count - int(whole.sum())]] += 1
    return whole


def allot(codes_N: Codes, count: int, last_N: Mask, classes: Classes = "share") -> Codes:
    """Say how many of each class are chosen: those taken last only after all others, [C]."""
    sizes_C = np.bincount(codes_N)
    first_C = np.bincount(codes_N[~last_N], minlength=len(sizes_C))
    if count <= first_C.sum():
        return quotas(first_C, count, classes)
    return first_C + quotas(sizes_C - first_C, count - int(first_C.sum()), classes)


def choose(
    codes_N: Codes, scores_N: Scores, count: int, last_N: Mask | None = None, classes: Classes = "share"
) -> Mask:
    """Choose the examples of the highest scores, class by class, [N].

    Args:
        codes_N: the class of each; all 0 where there are none.
        scores_N: the higher, the sooner it is chosen.
        count: how many are chosen.
        last_N: those that are chosen only when nothing else is left of their class.
        classes: each class gets by its size, or by the root of it.

    """
    last_N = np.zeros(len(codes_N), bool) if last_N is None else last_N
    return take(codes_N, scores_N, allot(codes_N, count, last_N, classes), last_N)


def take(codes_N: Codes, scores_N: Scores, quotas_C: Codes, last_N: Mask) -> Mask:
    """Choose so many of each class, those of the highest scores, the last ones last, [N]."""
    kept = np.zeros(len(codes_N), bool)
    for code, quota in enumerate(quotas_C):
        members = np.flatnonzero(codes_N == code)
        order = np.lexsort((-scores_N[members], last_N[members]))
        kept[members[order[:quota]]] = True
    return kept


def macro_f1(labels_N: Codes, guesses_N: Codes, classes: int) -> float:
    """Return the mean F1 of the classes; of one that neither labels nor guesses know, 0."""
    hits = np.bincount(labels_N[labels_N == guesses_N], minlength=classes)
    either = np.bincount(labels_N, minlength=classes) + np.bincount(guesses_N, minlength=classes)
    return float((2 * hits / np.maximum(either, 1)).mean())
