"""Which texts to have labelled next, from what a small model thinks of them (Settles 2009).

Legend: N texts without a label · C classes · D numbers of a vector · L texts with a label.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.data.balance.points import squared_distances

Shares = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.floating[Any]]
Strategy = Literal["uncertainty", "margin", "entropy", "diversity"]
_POOL = 5  # diversity is sought among so many times the texts wanted, the least certain ones


def doubt(shares_NC: Shares, by: Literal["uncertainty", "margin", "entropy"]) -> Shares:
    """Return how unsure a model is of each text, [N]; larger is less sure.

    Args:
        shares_NC: the probability of each class.
        by: uncertainty: one less the largest; margin: the second largest less the largest; entropy (nats).

    """
    ranked_NC = -np.sort(-shares_NC, axis=1)
    if by == "uncertainty":
        return np.asarray(1 - ranked_NC[:, 0])
    if by == "margin":
        return np.asarray(ranked_NC[:, 1] - ranked_NC[:, 0])
    return np.asarray(-(shares_NC * np.log(np.maximum(shares_NC, 1e-300))).sum(1))


def choose(
    shares_NC: Shares,
    count: int,
    *,
    strategy: Strategy = "margin",
    vectors_ND: Vectors | None = None,
    labelled_LD: Vectors | None = None,
) -> npt.NDArray[np.int64]:
    """Choose the texts to label next, most wanted first, [count].

    Args:
        shares_NC: a surrogate's probability of each class, of texts without a label.
        count: how many are wanted; all where there are no more.
        strategy: uncertainty, margin or entropy takes the least certain; diversity takes, among five times as
            many of the least certain (by margin), those that lie farthest from one another and from what has
            a label (greedy k-centre, Sener and Savarese 2018).
        vectors_ND: an embedding of each text, for diversity.
        labelled_LD: embeddings of texts that have a label, for diversity.

    Raises:
        DataError: probabilities of fewer than two classes, or diversity without an embedding of each text.

    """
    if shares_NC.ndim != 2 or shares_NC.shape[1] < 2 or not np.isfinite(shares_NC).all():
        raise DataError(
            f"probabilities of shape {shares_NC.shape}: they must be finite, of two classes or more",
            where="active learning",
        )
    if strategy != "diversity":
        return np.argsort(-doubt(shares_NC, strategy), kind="stable")[:count]
    if vectors_ND is None or len(vectors_ND) != len(shares_NC):
        raise DataError(
            f"diversity needs an embedding of each of {len(shares_NC):,} texts", where="active learning"
        )
    pool = np.argsort(-doubt(shares_NC, "margin"), kind="stable")[: _POOL * count]
    return np.asarray(pool[_farthest(vectors_ND[pool], min(count, len(pool)), labelled_LD)])


def _farthest(vectors_ND: Vectors, count: int, known_LD: Vectors | None) -> npt.NDArray[np.int64]:
    """Return vectors, each the farthest from those before it; where none is known, the first is 0."""
    nearest_N = np.full(len(vectors_ND), np.inf)
    if known_LD is not None and len(known_LD):
        for start in range(0, len(known_LD), 1024):
            near = squared_distances(vectors_ND, known_LD[start : start + 1024]).min(1)
            nearest_N = np.minimum(nearest_N, near)
    found: list[int] = []
    for _ in range(count):
        one = int(nearest_N.argmax())
        found.append(one)
        nearest_N = np.minimum(nearest_N, squared_distances(vectors_ND, vectors_ND[[one]])[:, 0])
        nearest_N[found] = -1  # the same text is not taken twice
    return np.array(found, np.int64)
