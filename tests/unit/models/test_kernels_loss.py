"""The chunked loss against torch's cross-entropy in float64."""

import pytest
import torch
from torch.nn import functional

from tanzim.models.kernels.loss import trained_token_loss


def reference(hidden, weight, targets, weights, scale=1.0, bias=None, softcap=None):
    logits = functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    safe = torch.where(weights != 0, targets, 0)
    return (functional.cross_entropy(logits, safe, reduction="none") * weights).sum() * scale


@pytest.mark.parametrize("chunk", [3, 256])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.125},
        {"bias": True},
        {"softcap": 1.5},
        {"softcap": 2.0, "scale": 0.7, "bias": True},
    ],
    ids=str,
)
def test_value_and_gradients(chunk, options):
    torch.manual_seed(0)
    options = dict(options)
    hidden = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(31, dtype=torch.float64, requires_grad=True) if options.pop("bias", False) else None
    targets = torch.randint(0, 31, (20,))
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5, 0.0] * 4, dtype=torch.float64)
    targets[weights == 0] = -100
    inputs = [hidden, weight] + ([] if bias is None else [bias])

    want = reference(hidden, weight, targets, weights, bias=bias, **options)
    want_grads = torch.autograd.grad(want * 3, inputs)
    got = trained_token_loss(hidden, weight, targets, weights, bias_V=bias, chunk=chunk, **options)
    got_grads = torch.autograd.grad(got * 3, inputs)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_low_precision_is_summed_in_float32():
    torch.manual_seed(0)
    hidden = torch.randn(50, 16, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(40, 16, dtype=torch.bfloat16, requires_grad=True)
    targets, weights = torch.randint(0, 40, (50,)), torch.ones(50)
    got = trained_token_loss(hidden, weight, targets, weights, chunk=7)
    want = reference(hidden.double(), weight.double(), targets, weights.double())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(got, [hidden, weight]), torch.autograd.grad(want, [hidden, weight]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_frozen_vocabulary_gets_no_gradient_and_no_trained_token_is_zero():
    hidden = torch.randn(4, 3, requires_grad=True)
    loss = trained_token_loss(hidden, torch.randn(5, 3), torch.zeros(4, dtype=torch.long), torch.zeros(4))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(hidden.grad, torch.zeros(4, 3))


def test_tied_matrix_adds_both_gradients():
    torch.manual_seed(0)
    table = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.randint(0, 11, (9,)), torch.ones(9, dtype=torch.float64)

    def grad(loss):
        return torch.autograd.grad(loss(functional.embedding(ids, table).tanh(), table, ids, weights), table)[
            0
        ]

    torch.testing.assert_close(grad(trained_token_loss), grad(reference), rtol=1e-10, atol=1e-12)
