"""A small model of the labels: TF-IDF of words, or embeddings, and a logistic regression (scikit-learn)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.data.similarity import normalise

EXTRA = "balance"
PLACES = 1 << 20  # places for words and pairs of words
_WORDS = 50_000  # most of them that one model looks at
_STEPS = 300  # of the solver

Codes = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def hashed_words(texts: Sequence[str]) -> Any:  # noqa: ANN401 - a SciPy CSR matrix
    """Count words and pairs of neighbours in hashed places, a sparse matrix [N, 2²⁰].

    Texts are normalised as for comparison: case, half-space or space, ي or ی make no difference.
    """
    text = need("sklearn.feature_extraction.text", EXTRA)
    hasher = text.HashingVectorizer(
        n_features=PLACES,
        ngram_range=(1, 2),
        norm=None,
        alternate_sign=False,
        lowercase=False,
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
    )
    return hasher.transform(normalise(one) for one in texts)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A fitted model of the labels.

    Args:
        model: a logistic regression.
        weighting: TF-IDF weights; None for embeddings.
        places: the hashed places that it looks at.
        classes: C, those that it did not see have the probability 0.

    """

    model: Any
    weighting: Any
    places: npt.NDArray[np.int64] | None
    classes: int

    def __call__(self, features: Any) -> Shares:  # noqa: ANN401 - a SciPy or numpy matrix
        """Return the probability of each class, [N, C]."""
        if self.weighting is not None:
            features = self.weighting.transform(features[:, self.places])
        shares_NC = np.zeros((features.shape[0], self.classes))
        shares_NC[:, self.model.classes_] = self.model.predict_proba(features)
        return shares_NC


def fit(
    features: Any,  # noqa: ANN401 - a SciPy or numpy matrix
    labels: Codes,
    classes: int,
    *,
    weights: npt.NDArray[np.float64] | None = None,
    strength: float = 2.0,
) -> Surrogate:
    """Fit a logistic regression to counts of words (sparse) or to embeddings (dense).

    Args:
        features: of N texts.
        labels: their classes, at least two different ones.
        classes: C.
        weights: how much each text counts.
        strength: the inverse of the L2 penalty (scikit-learn's C); small enough that single wrong labels are
            not learnt by heart.

    """
    linear = need("sklearn.linear_model", EXTRA)
    weighting, places = None, None
    if need("scipy.sparse", EXTRA).issparse(features):
        places = common_places(features)
        text = need("sklearn.feature_extraction.text", EXTRA)
        weighting = text.TfidfTransformer(sublinear_tf=True)
        features = weighting.fit_transform(features[:, places])
    model = linear.LogisticRegression(C=strength, max_iter=_STEPS)
    model.fit(features, labels, sample_weight=weights)
    return Surrogate(model, weighting, places, classes)


def common_places(features: Any, least: int = 1) -> npt.NDArray[np.int64]:  # noqa: ANN401 - a SciPy CSR matrix
    """Return the columns that so many texts have at least, the most common `_WORDS` of them, in order."""
    counts = np.bincount(features.indices, minlength=features.shape[1])
    found = np.flatnonzero(counts >= min(least, counts.max(initial=0)))
    if len(found) > _WORDS:
        found = np.sort(found[np.argsort(-counts[found], kind="stable")[:_WORDS]])
    return np.asarray(found, np.int64)
