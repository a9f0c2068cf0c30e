"""Surrogates that each leave a fold out, and what they say of the examples that they did not see, or saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.data.select import convex

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRENGTH = 2.0  # λ = 1 / (STRENGTH · N), as for the surrogate of label_noise
OUTSIDE = -1  # the fold of an example that no surrogate learnt from


@dataclass(frozen=True, slots=True)
class Learner:
    """A surrogate that learnt from all folds but one.

    Args:
        fold: the one it did not see.
        weights_FC: what it learnt.
        direction_FC: what influence is taken along; None where it is not asked for.

    """

    fold: int
    weights_FC: Array
    direction_FC: Array | None


def learn(x_NF: Any, labels_N: Codes, folds_N: Codes, classes: int, by: str) -> list[Learner]:  # noqa: ANN401
    """Fit a surrogate without each of the folds."""
    learners = []
    for fold in np.unique(folds_N):
        seen, held = np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)
        x, labels, penalty = x_NF[seen], labels_N[seen], 1 / (STRENGTH * len(seen))
        weights = convex.fit(x, labels, classes, penalty)
        along = None
        if by == "influence":
            along = convex.direction(x, weights, penalty, x_NF[held], labels_N[held])
        learners.append(Learner(int(fold), weights, along))
    return learners


def score(learners: Sequence[Learner], x_NF: Any, labels_N: Codes, folds_N: Codes) -> Array:  # noqa: ANN401
    """Return the influence (or effort) of each example, [N].

    Influence is the mean over the surrogates that learnt from the example, each on its own held-out fold;
    effort is what it would cost the surrogate that did not. An example of no fold (−1) asks them all.
    """
    totals, counts = np.zeros(len(labels_N)), np.zeros(len(labels_N))
    for one in learners:
        if one.direction_FC is None:
            asked = _unseen(one, folds_N)
            found = convex.effort(x_NF[asked], labels_N[asked], one.weights_FC)
        else:
            asked = np.flatnonzero(folds_N != one.fold)
            found = convex.influence(x_NF[asked], labels_N[asked], one.weights_FC, one.direction_FC)
        totals[asked] += found
        counts[asked] += 1
    return totals / np.maximum(counts, 1)


def unseen_shares(learners: Sequence[Learner], x_NF: Any, folds_N: Codes) -> Array:  # noqa: ANN401
    """Return what surrogates that did not see an example say of each class, [N, C]."""
    totals_NC = np.zeros((len(folds_N), learners[0].weights_FC.shape[1]))
    counts = np.zeros(len(folds_N))
    for one in learners:
        asked = _unseen(one, folds_N)
        totals_NC[asked] += convex.shares(x_NF[asked], one.weights_FC)
        counts[asked] += 1
    return totals_NC / np.maximum(counts, 1)[:, None]


def _unseen(one: Learner, folds_N: Codes) -> Codes:
    return np.flatnonzero((folds_N == one.fold) | (folds_N == OUTSIDE))


@dataclass(frozen=True, slots=True)
class Sample:
    """The examples that surrogates are fitted to: their numbers, features, labels, and folds."""

    rows: Codes
    x_NF: Any
    labels: Codes
    folds: Codes
    classes: int

    def picked(self, mask_N: Mask) -> Sample:
        """Return some of them."""
        here = np.flatnonzero(mask_N)
        return Sample(self.rows[here], self.x_NF[here], self.labels[here], self.folds[here], self.classes)

    def shares(self) -> Array:
        """Return how common each class is, [C]."""
        return np.bincount(self.labels, minlength=self.classes) / len(self.labels)
