"""The chunked distillation loss against torch's kl_div and cross_entropy in float64."""

import pytest
import torch
from torch.nn import functional

from tanzim.models.kernels.distil import distillation
from tanzim.models.kernels.loss import project, projected_loss


def reference(student, teacher, targets, weights, *, alpha, temperature, kind):
    """Hinton et al. 2015, with the full logits of both models in memory."""
    shared = min(student.shape[1], teacher.shape[1])
    ours = functional.log_softmax(student[:, :shared] / temperature, -1)
    theirs = functional.log_softmax(teacher[:, :shared] / temperature, -1)
    first, second = (ours, theirs) if kind == "forward" else (theirs, ours)
    soft = functional.kl_div(first, second, reduction="none", log_target=True).sum(-1) * temperature**2
    hard = functional.cross_entropy(student, torch.where(weights != 0, targets, 0), reduction="none")
    return ((alpha * soft + (1 - alpha) * hard) * weights).sum()


@pytest.mark.parametrize("kind", ["forward", "reverse"])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.5, 1.0), (1.0, 2.5), (0.0, 1.0), (0.9, 0.7)])
def test_value_and_gradients(kind, softcap, alpha, temperature):
    torch.manual_seed(0)
    hidden = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(31, dtype=torch.float64, requires_grad=True)
    # The teacher is of another width, and its vocabulary is padded to another size.
    teacher_hidden, teacher_weight = (torch.randn(n, 5, dtype=torch.float64) for n in (20, 33))
    targets = torch.randint(0, 31, (20,))
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5, 0.0] * 4, dtype=torch.float64)
    targets[weights == 0] = -100

    logits = functional.linear(hidden, weight, bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    settings = {"alpha": alpha, "temperature": temperature, "kind": kind}
    want = reference(logits, teacher_hidden @ teacher_weight.T, targets, weights, **settings)
    want_grads = torch.autograd.grad(want, [hidden, weight, bias])

    rows_loss = distillation(
        targets, lambda rows: project(teacher_hidden[rows], teacher_weight, None, None), **settings
    )
    got = projected_loss(hidden, weight, weights, rows_loss, chunk=3, bias_V=bias, softcap=softcap)
    got_grads = torch.autograd.grad(got, [hidden, weight, bias])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
