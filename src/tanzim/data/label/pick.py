"""What to have labelled next, out of many texts: a small model learns from the labels there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.data.balance import surrogate
from tanzim.data.label.active import Strategy, choose

By = Literal["random", "uncertainty", "margin", "entropy", "diversity"]
_MEANINGS = 50  # numbers of a text's vector


@dataclass(frozen=True, slots=True)
class Pick:
    """The texts to label next.

    Args:
        places: their numbers among the candidates, most wanted first.
        by: how they were chosen.
        why: and why so, for people.

    """

    places: list[int]
    by: By
    why: str


def pick(
    candidates: Sequence[str],
    known: Sequence[tuple[str, str]],
    labels: Sequence[str],
    count: int,
    *,
    by: By | None = None,
    seed: int = 13,
) -> Pick:
    """Choose what to label next.

    Args:
        candidates: texts without a label.
        known: texts with one: what the small model (TF-IDF, logistic regression) learns from.
        labels: all labels.
        count: how many are wanted; all where there are no more.
        by: random, or how unsure the model is (see `choose`); unset takes diversity where two labels are
            known, after which the model ranks texts best (bench/data_label.py).
        seed: of what is left to chance.

    Raises:
        MissingExtra: scikit-learn is not installed, and the choice is not random.

    """
    two = len({label for _, label in known}) > 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(candidates))
    if by == "random" or not two:
        why = "asked for" if by == "random" else "the labels known so far are of fewer than two classes"
        return Pick(order[:count].tolist(), "random", why)
    how: Strategy = by or "diversity"
    features = surrogate.hashed_words([*(text for text, _ in known), *(candidates[one] for one in order)])
    codes = np.array([list(labels).index(label) for _, label in known], np.int64)
    present, codes = np.unique(codes, return_inverse=True)  # of a label without a text nothing is known
    model = surrogate.fit(features[: len(known)], codes, len(present))
    vectors = meanings(features) if how == "diversity" else None
    found = choose(
        model(features[len(known) :]),
        count,
        strategy=how,
        vectors_ND=None if vectors is None else vectors[len(known) :],
        labelled_LD=None if vectors is None else vectors[: len(known)],
    )
    return Pick(order[found].tolist(), how, f"{len(known):,} labels to learn from")


def meanings(features: Any) -> npt.NDArray[np.floating[Any]]:  # noqa: ANN401 - a SciPy CSR matrix
    """Return a vector for each text from its words alone, in any language, [N, 50], rows of length 1.

    Latent semantic analysis (Deerwester et al. 1990): TF-IDF and a truncated singular value decomposition.
    """
    text = need("sklearn.feature_extraction.text", surrogate.EXTRA)
    parts = need("sklearn.decomposition", surrogate.EXTRA)
    shape = need("sklearn.preprocessing", surrogate.EXTRA)
    weighed = text.TfidfTransformer(sublinear_tf=True).fit_transform(
        features[:, surrogate.common_places(features, 2)]
    )
    size = min(_MEANINGS, min(weighed.shape) - 1)
    if size < 1:
        return np.zeros((features.shape[0], 1))
    reduced = parts.TruncatedSVD(size, random_state=0).fit_transform(weighed)
    return np.asarray(shape.normalize(reduced))
