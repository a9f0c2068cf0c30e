"""Confident learning: which labels are probably wrong, given what a model that did not see them says.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70).

Legend: N examples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Shares = npt.NDArray[np.floating[Any]]
_CLOSE = 1e-6  # a probability this near below a threshold reaches it
_BLOCK = 1 << 16  # examples looked at at a time: the probabilities may lie in a file


@dataclass(frozen=True, slots=True)
class Verdict:
    """What confident learning says.

    Args:
        wrong: whether the label is probably wrong, [N].
        likelier: the class that the model holds likeliest, [N].
        margin: how much likelier it is than the label's (0: it is the label's), [N].
        joint_CC: estimated number of examples with a label (row) that belong to a class (column).

    """

    wrong: npt.NDArray[np.bool_]
    likelier: Codes
    margin: npt.NDArray[np.float64]
    joint_CC: npt.NDArray[np.float64]


def thresholds(labels_N: Codes, shares_NC: Shares) -> npt.NDArray[np.float64]:
    """Return the mean probability of a class over what is labelled so, [C] (infinite for an empty class)."""
    classes = shares_NC.shape[1]
    sums, counts = np.zeros(classes), np.bincount(labels_N, minlength=classes)
    for block in _blocks(len(labels_N)):
        own = np.take_along_axis(shares_NC[block], labels_N[block, None], 1)[:, 0]
        sums += np.bincount(labels_N[block], weights=own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_joint(labels_N: Codes, shares_NC: Shares) -> npt.NDArray[np.float64]:
    """Count how many of each label confidently belong to each class, scaled to all examples, [C, C].

    An example belongs to a class whose threshold its probability reaches; of several, the likeliest.
    Rows are scaled to the number of examples with that label (the paper's calibration).
    """
    classes, bounds = shares_NC.shape[1], thresholds(labels_N, shares_NC)
    joint_CC = np.zeros((classes, classes))
    for block in _blocks(len(labels_N)):
        shares, labels = shares_NC[block], labels_N[block]
        reached = shares >= bounds - _CLOSE
        guess = np.where(reached.sum(1) > 1, shares.argmax(1), reached.argmax(1))
        sure = reached.any(1)
        np.add.at(joint_CC, (labels[sure], guess[sure]), 1)
    diagonal = np.arange(classes)
    joint_CC[diagonal, diagonal] = np.maximum(joint_CC[diagonal, diagonal], 1)
    counts = np.bincount(labels_N, minlength=classes)
    return np.asarray(joint_CC / joint_CC.sum(1, keepdims=True) * counts[:, None])


def find_wrong(labels_N: Codes, shares_NC: Shares, *, min_per_class: int = 1) -> Verdict:
    """Find the labels that are probably wrong (the paper's "prune by noise rate").

    For each label and each other class, as many examples as the joint says belong there are wrong: those
    whose probability of the other class most exceeds that of the label. A label that the model itself holds
    likeliest is never wrong.

    Args:
        labels_N: the labels.
        shares_NC: probabilities from a model that did not learn from the example.
        min_per_class: a class with no more examples than this loses none, and none loses more than to this.

    """
    joint_CC = confident_joint(labels_N, shares_NC)
    likelier, margin = _likeliest(labels_N, shares_NC)
    wrong = np.zeros(len(labels_N), bool)
    for label in range(shares_NC.shape[1]):
        members = np.flatnonzero(labels_N == label)
        spare = len(members) - min_per_class
        if spare <= 0:
            continue
        shares = np.asarray(shares_NC[members], np.float64)
        for other, count in enumerate(whole(joint_CC[label])):
            if other != label and count:
                ahead = shares[:, other] - shares[:, label]
                wrong[members[np.argsort(-ahead, kind="stable")[:count]]] = True
        wrong[members] &= likelier[members] != label
        flagged = members[wrong[members]]
        if len(flagged) > spare:  # the least certain stay
            wrong[flagged[np.argsort(-margin[flagged], kind="stable")[spare:]]] = False
    return Verdict(wrong, likelier, margin, joint_CC)


def whole(row: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Round a row of counts to whole numbers with the same sum, by the largest remainders."""
    low = np.floor(row).astype(np.int64)
    left = int(np.round(row.sum())) - int(low.sum())
    low[np.argsort(-(row - low), kind="stable")[:left]] += 1
    return low


def _likeliest(labels_N: Codes, shares_NC: Shares) -> tuple[Codes, npt.NDArray[np.float64]]:
    """Return the likeliest class, the label's own where nothing is likelier, and how much likelier it is."""
    likelier, margin = labels_N.copy(), np.zeros(len(labels_N))
    for block in _blocks(len(labels_N)):
        shares, labels = np.asarray(shares_NC[block], np.float64), labels_N[block]
        own, best = np.take_along_axis(shares, labels[:, None], 1)[:, 0], shares.max(1)
        ahead = best > own
        likelier[block] = np.where(ahead, shares.argmax(1), labels)
        margin[block] = best - own
    return likelier, margin


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
