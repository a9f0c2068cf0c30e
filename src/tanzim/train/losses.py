"""Losses of labels, as pure functions: tensors in, (Σ weight × loss, Σ weight) out.

Weights of classes multiply the loss of what belongs to a class and leave the count as it is; `scaled`
gives them the mean 1 over the training labels, so that the loss keeps its size. torch's
``CrossEntropyLoss(weight)`` divides by the sum of the class weights of each batch instead: the same over
all training labels at once, and in a batch alike up to that batch's share of each class.

Shapes: N things labelled, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Sum = tuple[Tensor, Tensor]


def cross_entropy(logits_NC: Tensor, labels_N: Tensor, weights_N: Tensor, *, smoothing: float = 0.0) -> Sum:
    """Return Σ w·(−log p_y) and Σ w.

    Args:
        logits_NC: in any precision; the loss is taken in at least float32.
        labels_N: right classes, int64.
        weights_N: weight of each.
        smoothing: share of each target spread evenly over all classes (Szegedy et al. 2015,
            arXiv:1512.00567).

    """
    losses_N = functional.cross_entropy(
        _wide(logits_NC), labels_N, reduction="none", label_smoothing=smoothing
    )
    return _sum(losses_N, weights_N)


def focal(logits_NC: Tensor, labels_N: Tensor, weights_N: Tensor, *, gamma: float) -> Sum:
    """Return Σ w·(1 − p_y)^γ·(−log p_y) and Σ w (Lin et al. 2017, arXiv:1708.02002).

    What is recognised already counts less, so that rare and hard examples are not drowned by easy ones.

    Args:
        logits_NC: in any precision; the loss is taken in at least float32.
        labels_N: right classes, int64.
        weights_N: weight of each.
        gamma: how much less; 0 is the cross-entropy.

    """
    logp_N = functional.log_softmax(_wide(logits_NC), dim=-1).gather(1, labels_N[:, None])[:, 0]
    # 1 − p, exact where p is nearly 1; its power has no gradient at 0, which the bound keeps away.
    missing_N = (-torch.expm1(logp_N)).clamp(min=torch.finfo(logp_N.dtype).tiny)
    return _sum(-(missing_N**gamma) * logp_N, weights_N)


def expected_cost(logits_NC: Tensor, labels_N: Tensor, weights_N: Tensor, *, costs_CC: Tensor) -> Sum:
    """Return Σ w·Σ_k p_k·cost[y, k] and Σ w: what the guesses would cost on average (Elkan 2001).

    Args:
        logits_NC: in any precision; the loss is taken in at least float32.
        labels_N: right classes y, int64.
        weights_N: weight of each.
        costs_CC: cost of saying k (column) where y (row) is right.

    """
    shares_NC = functional.softmax(_wide(logits_NC), dim=-1)
    return _sum((shares_NC * costs_CC.to(shares_NC.dtype)[labels_N]).sum(-1), weights_N)


def balanced(counts_C: Tensor) -> Tensor:
    """Return the weight n / (K·n_c) of each class, float64 [C]: each of the K classes counts the same.

    Args:
        counts_C: how often each class stands in the training set; one that does not gets the weight 1.

    """
    counts_C = counts_C.double()
    present = counts_C > 0
    even = counts_C.sum() / present.sum()
    return torch.where(present, even / counts_C.clamp(min=1), 1.0)


def scaled(weights_C: Tensor, counts_C: Tensor) -> Tensor:
    """Return the weights of classes times one factor, so that their mean over the training labels is 1.

    Args:
        weights_C: any weights, not all 0 on the classes that occur.
        counts_C: how often each class stands in the training set.

    """
    counts_C = counts_C.double()
    return weights_C.double() * counts_C.sum() / (weights_C.double() * counts_C).sum()


def _wide(logits_NC: Tensor) -> Tensor:
    return logits_NC.to(torch.promote_types(logits_NC.dtype, torch.float32))


def _sum(losses_N: Tensor, weights_N: Tensor) -> Sum:
    weights_N = weights_N.to(losses_N.dtype)
    return (losses_N * weights_N).sum(), weights_N.sum()
