"""Losses of labels against torch, scikit-learn and the written-out formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import CrossEntropyLoss

from tanzim.train.losses import balanced, cross_entropy, expected_cost, focal, scaled

N, C = 40, 4


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels (rare and frequent), weights."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(N, C, generator=draw, dtype=torch.float64) * 3
    labels = torch.multinomial(torch.tensor([8.0, 4.0, 2.0, 1.0]), N, replacement=True, generator=draw)
    return logits, labels, torch.rand(N, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs(data, smoothing: float) -> None:
    logits, labels, weights = data
    total, count = cross_entropy(logits, labels, weights, smoothing=smoothing)
    each = CrossEntropyLoss(reduction="none", label_smoothing=smoothing)(logits, labels)
    torch.testing.assert_close(total, (each * weights).sum())
    torch.testing.assert_close(count, weights.sum())


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_and_gradient_are_the_papers(data, gamma: float) -> None:
    logits, labels, weights = data
    logits.requires_grad_()
    total, _ = focal(logits, labels, weights, gamma=gamma)
    (ours,) = torch.autograd.grad(total, logits)
    p = torch.softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    want = (-weights * (1 - p) ** gamma * torch.log(p)).sum()
    torch.testing.assert_close(total, want)
    # The derivative of FL by the logit of the right class, from the paper's appendix B (x·y there):
    right = gamma * p * torch.log(p) - (1 - p)
    slope = weights * (1 - p) ** gamma * right
    torch.testing.assert_close(ours.gather(1, labels[:, None])[:, 0], slope)


def test_focal_loss_without_gamma_is_the_cross_entropy(data) -> None:
    logits, labels, weights = data
    torch.testing.assert_close(
        focal(logits, labels, weights, gamma=0.0)[0], cross_entropy(logits, labels, weights)[0]
    )


def test_focal_loss_of_what_is_certain_is_nothing_and_finite() -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    total, _ = focal(logits, torch.tensor([0, 0]), torch.ones(2), gamma=0.5)
    total.backward()
    assert total.item() == pytest.approx(200.0)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().max() == 0


def test_expected_cost_is_the_average_cost_of_guesses_drawn_by_their_shares(data) -> None:
    logits, labels, _ = data
    costs = torch.rand(C, C, generator=torch.Generator().manual_seed(3)).double().fill_diagonal_(0)
    total, count = expected_cost(logits, labels, torch.ones(N), costs_CC=costs)
    shares = torch.softmax(logits, -1)
    want = sum(float(shares[i, k] * costs[labels[i], k]) for i in range(N) for k in range(C))
    assert total.item() == pytest.approx(want, rel=1e-12)
    assert count.item() == N
    # With a cost of 1 for every mistake it is the expected number of mistakes.
    even = 1 - torch.eye(C)
    mistakes, _ = expected_cost(logits, labels, torch.ones(N), costs_CC=even)
    assert mistakes.item() == pytest.approx(float((1 - shares.gather(1, labels[:, None])).sum()))


def test_the_least_expected_cost_is_to_say_what_costs_least() -> None:
    """Missing class 1 costs 9, so with p(1) = 0.2 saying 1 is right: the gradient must lead there."""
    costs = torch.tensor([[0.0, 1.0], [9.0, 0.0]])
    logit = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([logit], 0.5)
    labels = torch.tensor([0, 0, 0, 0, 1])
    for _ in range(300):
        optimizer.zero_grad()
        expected_cost(logit.expand(5, 2), labels, torch.ones(5), costs_CC=costs)[0].backward()
        optimizer.step()
    assert logit.argmax() == 1


def test_balanced_weights_are_scikit_learns(data) -> None:
    _, labels, _ = data
    counts = torch.bincount(labels, minlength=C + 1)
    want = compute_class_weight("balanced", classes=np.arange(C), y=labels.numpy())
    np.testing.assert_allclose(balanced(counts)[:C].numpy(), want)
    assert balanced(counts)[C] == 1  # a class that no training example has
    torch.testing.assert_close(scaled(balanced(counts), counts), balanced(counts))  # mean 1 already


def test_class_weights_over_all_labels_at_once_are_torchs_mean(data) -> None:
    logits, labels, _ = data
    named = torch.tensor([1.0, 5.0, 0.5, 3.0], dtype=torch.float64)
    weights = scaled(named, torch.bincount(labels, minlength=C))
    assert weights[labels].mean().item() == pytest.approx(1.0)
    total, _ = cross_entropy(logits, labels, weights[labels])
    torch.testing.assert_close(total / N, CrossEntropyLoss(weight=named)(logits, labels))
