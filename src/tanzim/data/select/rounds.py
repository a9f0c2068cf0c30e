"""What is worth learning next: what a surrogate of the examples chosen so far does not know, but could.

Mindermann et al. 2022, "Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet
Learnt" (arXiv:2206.07137): an example's reducible loss is its loss now minus its loss under a model of other
examples. A wrong label keeps its loss whatever is learnt, a text like those chosen has none left: both are
passed over. Here whole rounds of examples are chosen, each by a new surrogate of all those before.

Chosen examples have other shares of classes than all; so that the shares teach nothing, every loss is taken
as if classes were equally common (logit adjustment, Menon et al. 2021, arXiv:2007.07314).

Legend: N examples, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.data.select import convex
from tanzim.data.select.choose import take

Codes = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ROUNDS = 16
_TINY = 1e-12  # a probability is no smaller than this: a loss is at most 28 nats


@dataclass(frozen=True, slots=True)
class Round:
    """One round of choosing.

    Args:
        weights_FC: the surrogate of what was chosen before; of the first round, one that knows nothing.
        shares_C: how common each class is among what it learnt from.
        bounds_C: the least reducible loss of what the round took of each class; infinite if it took none.

    """

    weights_FC: Array
    shares_C: Array
    bounds_C: Array

    def gains(self, x_NF: Any, labels_N: Codes, irreducible_N: Array) -> Array:  # noqa: ANN401 - a matrix
        """Return the reducible loss of examples (nats), [N]."""
        logits_NC = np.asarray(x_NF @ self.weights_FC, np.float64)
        return even_loss(logits_NC, labels_N, self.shares_C) - irreducible_N


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of the rounds.

    Args:
        rounds: each of them.
        order_N: when an example is chosen, the higher the sooner: a whole number for each round it is
            before the end, and a fraction that grows with its reducible loss.
        gains_N: its reducible loss in the round that took it, or in the last.

    """

    rounds: list[Round]
    order_N: Array
    gains_N: Array


def even_loss(logits_NC: Array, labels_N: Codes, shares_C: Array) -> Array:
    """Return the cross-entropy (nats) that these logits would have if classes were equally common, [N].

    Args:
        logits_NC: logits, or logarithms of probabilities.
        labels_N: the labels.
        shares_C: how common the classes are in what the logits were learnt from.

    """
    even_NC = logits_NC - np.log(np.maximum(shares_C, _TINY))
    top = even_NC.max(1)
    total = np.log(np.exp(even_NC - top[:, None]).sum(1)) + top
    return np.asarray(total - even_NC[np.arange(len(labels_N)), labels_N])


def irreducible(probabilities_NC: npt.NDArray[Any], labels_N: Codes, shares_C: Array) -> Array:
    """Return the loss under surrogates that did not see the example, [N].

    Args:
        probabilities_NC: what they say of each class.
        labels_N: the labels.
        shares_C: how common the classes are in what they learnt from.

    """
    logs_NC = np.log(np.maximum(np.asarray(probabilities_NC, np.float64), _TINY))
    return even_loss(logs_NC, labels_N, shares_C)


def take_rounds(
    x_NF: Any,  # noqa: ANN401 - a SciPy or numpy matrix
    labels_N: Codes,
    irreducible_N: Array,
    quotas_C: Codes,
    last_N: Mask,
    strength: float,
) -> Taken:
    """Choose so many examples of each class, round by round.

    Args:
        x_NF: features; a constant one among them stands for the bias.
        labels_N: their classes.
        irreducible_N: see `irreducible`.
        quotas_C: how many of each class are chosen.
        last_N: those that are taken only when nothing else is left of their class.
        strength: the surrogate's penalty is 1 / (strength · examples it learns from).

    """
    classes = len(quotas_C)
    weights, shares = np.zeros((x_NF.shape[1], classes)), np.full(classes, 1 / classes)
    order, gains = np.zeros(len(labels_N)), np.zeros(len(labels_N))
    kept, rounds = np.zeros(len(labels_N), bool), []
    for number in range(1, ROUNDS + 1):
        if kept.any():
            penalty = 1 / (strength * int(kept.sum()))
            weights = convex.fit(x_NF[kept], labels_N[kept], classes, penalty, tolerance=1e-4)
            shares = np.bincount(labels_N[kept], minlength=classes) / int(kept.sum())
        now = Round(weights, shares, np.full(classes, np.inf))
        free = np.flatnonzero(~kept)
        gains[free] = now.gains(x_NF[free], labels_N[free], irreducible_N[free])
        # One of each class at least from the first round on, the whole quota in the last.
        goal_C = np.maximum(np.round(quotas_C * number / ROUNDS), np.minimum(quotas_C, 1)).astype(np.int64)
        lacking_C = goal_C - np.bincount(labels_N[kept], minlength=classes)
        new = free[take(labels_N[free], gains[free], lacking_C, last_N[free])]
        np.minimum.at(now.bounds_C, labels_N[new], gains[new])
        order[new] = ROUNDS - number + 1
        kept[new] = True
        rounds.append(now)
    return Taken(rounds, order + _fraction(gains), gains)


def place(rounds: Sequence[Round], x_NF: Any, labels_N: Codes, irreducible_N: Array) -> tuple[Array, Array]:  # noqa: ANN401
    """Say when other examples would have been taken, by the bounds of the rounds.

    Returns:
        As `Taken.order_N` and `Taken.gains_N`.

    """
    order, gains = np.zeros(len(labels_N)), np.zeros(len(labels_N))
    free = np.ones(len(labels_N), bool)
    for number, one in enumerate(rounds, 1):
        now = one.gains(x_NF, labels_N, irreducible_N)
        gains[free] = now[free]
        new = free & (now >= one.bounds_C[labels_N])
        order[new] = ROUNDS - number + 1
        free &= ~new
    return order + _fraction(gains), gains


def _fraction(gains_N: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(gains_N, -30, 30))))
