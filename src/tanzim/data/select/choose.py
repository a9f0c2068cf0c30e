"""Which examples are kept, given their scores; and what a guess is worth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def quotas(sizes_C: Codes, count: int) -> Codes:
    """Divide ``count`` by the sizes of classes (largest remainders, Hamilton's method), [C]."""
    exact = sizes_C * min(count, int(sizes_C.sum())) / max(int(sizes_C.sum()), 1)
    whole = np.floor(exact + 1e-9).astype(np.int64)
    left = min(count, int(sizes_C.sum())) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


def choose(codes_N: Codes, scores_N: Scores, count: int, last_N: Mask | None = None) -> Mask:
    """Choose the examples of the highest scores, each class keeping its share, [N].

    Args:
        codes_N: the class of each; all 0 where there are none.
        scores_N: the higher, the sooner it is chosen.
        count: how many are chosen.
        last_N: those that are chosen only when nothing else is left of their class.

    """
    last_N = np.zeros(len(codes_N), bool) if last_N is None else last_N
    kept = np.zeros(len(codes_N), bool)
    for code, quota in enumerate(quotas(np.bincount(codes_N), count)):
        members = np.flatnonzero(codes_N == code)
        order = np.lexsort((-scores_N[members], last_N[members]))
        kept[members[order[:quota]]] = True
    return kept


def macro_f1(labels_N: Codes, guesses_N: Codes, classes: int) -> float:
    """Return the mean F1 of the classes; of one that neither labels nor guesses know, 0."""
    hits = np.bincount(labels_N[labels_N == guesses_N], minlength=classes)
    either = np.bincount(labels_N, minlength=classes) + np.bincount(guesses_N, minlength=classes)
    return float((2 * hits / np.maximum(either, 1)).mean())
