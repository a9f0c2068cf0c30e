"""What uneven classes mean in numbers, and how many examples of each would even them out.

Legend: C classes; n_c examples of class c; N = Σ n_c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def raised(counts: Counts, ratio: float) -> Counts:
    """Return n_c once each class is brought up to ``ratio`` of the largest, [C]."""
    return np.maximum(counts, math.ceil(round(ratio * int(counts.max()), 9)))


def lowered(counts: Counts, ratio: float) -> Counts:
    """Return n_c once each class is cut until the smallest is ``ratio`` of it, [C]."""
    return np.minimum(counts, math.floor(round(int(counts.min()) / ratio, 9)))


def class_weights(counts: Counts) -> npt.NDArray[np.float64]:
    """Return N / (C·n_c), the weights that make every class count alike (King and Zeng 2001), [C]."""
    return np.asarray(counts.sum() / (len(counts) * counts), np.float64)


def effective_number(counts: Counts, beta: float | None = None) -> npt.NDArray[np.float64]:
    """Return (1 − β^n_c) / (1 − β), the samples left once overlap is discounted, [C].

    Args:
        counts: n_c.
        beta: how much each further sample still adds; (N − 1) / N if not given.

    Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples" (arXiv:1901.05555).

    """
    beta = (counts.sum() - 1) / counts.sum() if beta is None else beta
    if beta >= 1:
        return counts.astype(np.float64)
    return (1 - beta**counts) / (1 - beta)


def evenness(counts: Counts) -> float:
    """Return the entropy of the classes divided by log C: 1 where all are equally common (Pielou 1966)."""
    if len(counts) < 2:
        return 1.0
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(len(counts)))


def chance_of_none(share: float, batch: float) -> float:
    """Return how likely a batch of so many examples drawn by chance holds none of a class."""
    return float((1 - share) ** batch) if share < 1 else 0.0


def blind_scores(counts: Counts) -> tuple[float, float]:
    """Return accuracy and macro-F1 of saying the most common class each time.

    The F1 of that class is 2·p/(p + 1) for its share p, of all others 0.
    """
    share = float(counts.max() / counts.sum())
    return share, 2 * share / (share + 1) / len(counts)


def ordered(counts: Mapping[str, int]) -> tuple[list[str], Counts]:
    """Return the names of classes, the most common first, and how often they are, [C]."""
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return names, np.array([counts[name] for name in names], np.int64)
