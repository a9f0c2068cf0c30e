"""Small models of the labels, bagging and boosting among them: what a fine-tuned model has to beat.

Bagging: Breiman 1996; boosting: Freund and Schapire 1997 (guide 3.1.3, technique 5). On TF-IDF of words, by
scikit-learn; each with the classes weighted evenly, so that rare ones are not given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Guesses:
    """What a model says of N texts.

    Args:
        names: the classes it knows, sorted.
        labels: the class it says, [N].
        shares_NC: how sure it is of each class.

    """

    names: list[str]
    labels: list[str]
    shares_NC: npt.NDArray[np.float64]


def baselines(
    texts: Sequence[str], labels: Sequence[str], others: Sequence[str], *, seed: int
) -> dict[str, Guesses]:
    """Train small models, and let each label other texts.

    Args:
        texts: to learn from.
        labels: their classes.
        others: texts to label.
        seed: decides what is drawn.

    Returns:
        By model what it says of ``others``: always the most common, logistic regression, bagging, boosting.

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
    usual = np.bincount(codes) / len(codes)
    found = {
        MOST_COMMON: np.tile(usual, (len(others), 1)),
        "logistic regression": logistic(asked),
    }
    columns = common_places(learnt, least=2)
    for name, model in _ensembles(seed).items():
        model.fit(learnt[:, columns], codes, sample_weight=weights)
        found[name] = model.predict_proba(asked[:, columns])
    return {
        name: Guesses(names, [names[code] for code in shares_NC.argmax(1).tolist()], shares_NC)
        for name, shares_NC in found.items()
    }


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


def measured(guesses: Mapping[str, Guesses], right: Sequence[str]) -> Json:
    """Return how well each model does, by measures that rare classes count in (guide 3.1.3, technique 8).

    Args:
        guesses: by model, what it says.
        right: the true labels.

    Returns:
        By model: accuracy, macro-F1, balanced accuracy (mean recall), Cohen's kappa, and average precision
        (the area under the precision-recall curve; the mean of the classes that are there and known).

    """
    return {model: _of(one, right) for model, one in guesses.items()}


def _of(guesses: Guesses, right: Sequence[str]) -> dict[str, float]:
    names = sorted({*right, *guesses.labels})
    places = {name: code for code, name in enumerate(names)}
    truth = np.array([places[label] for label in right], np.int64)
    found = _measures(np.array([places[label] for label in guesses.labels], np.int64), truth, len(names))
    area = need("sklearn.metrics", EXTRA).average_precision_score
    true_NC = np.array([[label == name for name in guesses.names] for label in right])
    there = np.flatnonzero(true_NC.any(0))
    areas = [area(true_NC[:, code], guesses.shares_NC[:, code]) for code in there]
    return found | {"average_precision": round(float(np.mean(areas)), 4) if areas else 0.0}


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
