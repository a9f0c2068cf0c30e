"""Small models of the labels, bagging and boosting among them: what a fine-tuned model has to beat.

Bagging: Breiman 1996; boosting: Freund and Schapire 1997 (guide 3.1.3, technique 5). On TF-IDF of words, by
scikit-learn; each with the classes weighted evenly, so that rare ones are not given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.data.balance.counts import class_weights
from tanzim.data.balance.surrogate import EXTRA, Codes, common_places, fit, hashed_words

_TREES = 25  # of the bag
_ROUNDS = 60  # of boosting
MOST_COMMON = "always the most common"


def baselines(
    texts: Sequence[str], labels: Sequence[str], others: Sequence[str], *, seed: int
) -> dict[str, list[str]]:
    """Train small models, and let each label other texts.

    Args:
        texts: to learn from.
        labels: their classes.
        others: texts to label.
        seed: decides what is drawn.

    Returns:
        By model the labels of ``others``: always the most common, logistic regression, bagging, boosting.

    Raises:
        DataError: there are no two classes to tell apart.

    """
    names = sorted(set(labels))
    if len(names) < 2:
        raise DataError(
            f"there is one class ('{names[0]}')" if names else "there is nothing to learn from",
            where="data.baseline",
            fix="give texts of two classes at the least",
        )
    places = {name: code for code, name in enumerate(names)}
    codes = np.array([places[label] for label in labels], np.int64)
    weights = class_weights(np.bincount(codes))[codes]
    learnt, asked = hashed_words(texts), hashed_words(others)
    logistic = fit(learnt, codes, len(names), weights=weights)
    found: dict[str, npt.NDArray[np.int64]] = {
        MOST_COMMON: np.full(len(others), np.bincount(codes).argmax()),
        "logistic regression": logistic(asked).argmax(1),
    }
    columns = common_places(learnt, least=2)
    for name, model in _ensembles(seed).items():
        model.fit(learnt[:, columns], codes, sample_weight=weights)
        found[name] = model.predict(asked[:, columns])
    return {name: [names[code] for code in guesses.tolist()] for name, guesses in found.items()}


def _ensembles(seed: int) -> dict[str, Any]:
    """Return a bag of trees and boosted stumps of scikit-learn."""
    seed %= 1 << 32  # scikit-learn takes no more
    ensemble, trees = need("sklearn.ensemble", EXTRA), need("sklearn.tree", EXTRA)
    whole = trees.DecisionTreeClassifier(max_features="sqrt", min_samples_leaf=2, random_state=seed)
    small = trees.DecisionTreeClassifier(max_depth=2, random_state=seed)
    return {
        "bagging": ensemble.BaggingClassifier(whole, _TREES, random_state=seed),
        "boosting": ensemble.AdaBoostClassifier(small, n_estimators=_ROUNDS, random_state=seed),
    }


def measured(guesses: Mapping[str, Sequence[str]], right: Sequence[str]) -> Json:
    """Return how well each model does, by measures that rare classes count in (guide 3.1.3, technique 8).

    Args:
        guesses: by model, labels.
        right: the true ones.

    Returns:
        By model: accuracy, macro-F1, balanced accuracy (mean recall) and Cohen's kappa.

    """
    names = sorted({*right, *(label for some in guesses.values() for label in some)})
    places = {name: code for code, name in enumerate(names)}
    truth = np.array([places[label] for label in right], np.int64)
    return {
        model: _measures(np.array([places[label] for label in some], np.int64), truth, len(names))
        for model, some in guesses.items()
    }


def _measures(guess: Codes, truth: Codes, classes: int) -> dict[str, float]:
    table_CC = np.zeros((classes, classes))
    np.add.at(table_CC, (truth, guess), 1)
    hits, said, true, total = np.diag(table_CC), table_CC.sum(0), table_CC.sum(1), table_CC.sum()
    accuracy, chance = hits.sum() / total, (said * true).sum() / total**2
    found = {
        "accuracy": accuracy,
        "macro_f1": (2 * hits / np.maximum(said + true, 1)).mean(),
        "balanced_accuracy": (hits[true > 0] / true[true > 0]).mean(),
        "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else 0.0,
    }
    return {name: round(float(value), 4) for name, value in found.items()}
