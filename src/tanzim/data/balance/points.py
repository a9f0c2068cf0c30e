"""SMOTE's arithmetic: points between a rare example and one of its nearest of the same class.

Chawla, Bowyer, Hall and Kegelmeyer 2002, "SMOTE: Synthetic Minority Over-sampling Technique".

Legend: N examples of one class; D numbers of a vector; K nearest neighbours; M new points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]
_BLOCK = 1024  # rows whose distances to all others are held at a time


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance decides about M points.

    Args:
        parents: the example that each starts from, [M].
        columns: which of its neighbours it goes towards, counted from 0, [M].
        steps: how far it goes, from 0 (stays) to 1 (arrives), [M].

    """

    parents: Indices
    columns: Indices
    steps: npt.NDArray[np.float64]


def draw(count: int, examples: int, neighbours: int, seed: int) -> Draws:
    """Draw M points so that no example starts more than one more of them than another.

    Args:
        count: M.
        examples: N.
        neighbours: K.
        seed: decides.

    """
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(examples) for _ in range(-(-count // examples))]
    parents = np.concatenate([np.empty(0, np.int64), *rounds])[:count]
    return Draws(parents, rng.integers(0, neighbours, count), rng.random(count))


def nearest_neighbours(vectors_ND: Vectors, neighbours: int) -> Indices:
    """Return the K nearest other vectors of each, by Euclidean distance, nearest first, [N, K].

    Raises:
        ValueError: there are not K others.

    """
    if len(vectors_ND) <= neighbours:
        raise ValueError(f"{len(vectors_ND)} vectors have no {neighbours} neighbours each")
    found_NK = np.empty((len(vectors_ND), neighbours), np.int64)
    for start in range(0, len(vectors_ND), _BLOCK):
        distances = squared_distances(vectors_ND[start : start + _BLOCK], vectors_ND)
        rows = np.arange(len(distances))
        distances[rows, rows + start] = np.inf
        nearest = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        order = np.argsort(distances[rows[:, None], nearest], axis=1, kind="stable")
        found_NK[start : start + _BLOCK] = nearest[rows[:, None], order]
    return found_NK


def squared_distances(one_AD: Vectors, two_BD: Vectors) -> npt.NDArray[np.float64]:
    """Return the squared Euclidean distance of each pair, [A, B]."""
    one, two = one_AD.astype(np.float64), two_BD.astype(np.float64)
    distances: npt.NDArray[np.float64] = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return np.maximum(distances, 0)


def interpolate(vectors_ND: Vectors, neighbours_NK: Indices, draws: Draws) -> npt.NDArray[np.float64]:
    """Return the points x + step·(neighbour − x), [M, D]."""
    from_MD = vectors_ND[draws.parents].astype(np.float64)
    to_MD = vectors_ND[neighbours_NK[draws.parents, draws.columns]]
    return np.asarray(from_MD + draws.steps[:, None] * (to_MD - from_MD))


def smote(
    vectors_ND: Vectors, codes: Indices, wanted: Indices, seed: int, *, neighbours: int = 5
) -> tuple[npt.NDArray[np.float64], Indices]:
    """Make as many points of each class as it lacks.

    Args:
        vectors_ND: all examples, of any class.
        codes: their classes, [N].
        wanted: examples of each class in the result, [C].
        seed: decides.
        neighbours: K; a class with fewer others takes all there are, and one with none makes no point.

    Returns:
        The new points, [M, D], and their classes, [M].

    """
    points, classes = [np.empty((0, vectors_ND.shape[1]))], [np.empty(0, np.int64)]
    for code, target in enumerate(wanted):
        members = np.flatnonzero(codes == code)
        lacking, near = int(target) - len(members), min(neighbours, len(members) - 1)
        if lacking > 0 and near > 0:
            vectors = vectors_ND[members]
            draws = draw(lacking, len(members), near, seed + code)
            points.append(interpolate(vectors, nearest_neighbours(vectors, near), draws))
            classes.append(np.full(lacking, code))
    return np.concatenate(points), np.concatenate(classes)
