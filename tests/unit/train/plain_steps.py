"""Training written out a second time: plain logits of single documents, AdamW by its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tanzim.core.records import Rendered

Values = dict[str, Tensor]
RATE = 1e-2
# One pass of all documents a step, no clipping, no schedule: what is left is the method itself.
SETTINGS: dict[str, Any] = {
    "tokens_per_step": 8192,
    "tokens_per_pass": 8192,
    "epochs": 99.0,
    "learning_rate": RATE,
    "schedule": "constant",
    "warmup_steps": 0,
    "max_grad_norm": 1e9,
    "weight_decay": 0.1,
    "validation_documents": [],
}


def mean_loss(model: nn.Module, values: Mapping[str, Tensor], rows: Sequence[Rendered]) -> Tensor:
    """Return Σ weight · cross-entropy / Σ weight, with ``values`` in place of the model's parameters."""
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for row in rows:
        ids = torch.tensor([row.ids])
        logits = functional_call(model, dict(values), kwargs={"input_ids": ids, "use_cache": False}).logits
        losses = functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
        total = total + losses @ torch.tensor(row.weights[1:], dtype=losses.dtype)
        weight += sum(row.weights[1:])
    return total / weight


class Adam:
    """AdamW (arXiv:1711.05101) on named tensors; one without a gradient is left alone."""

    def __init__(self, values: Values, *, decayed: Callable[[str], bool] | None = None) -> None:
        self.values = values
        self.decayed = decayed or (lambda name: values[name].ndim >= 2)
        self.moments: dict[str, list[Any]] = {}

    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            state = self.moments.setdefault(name, [0, torch.zeros_like(gradient), torch.zeros_like(gradient)])
            state[0] += 1
            state[1] = 0.9 * state[1] + 0.1 * gradient
            state[2] = 0.999 * state[2] + 0.001 * gradient**2
            mean, square = state[1] / (1 - 0.9 ** state[0]), state[2] / (1 - 0.999 ** state[0])
            value = self.values[name]
            decay = 0.1 if self.decayed(name) else 0.0
            self.values[name] = value - RATE * (mean / (square.sqrt() + 1e-8) + decay * value)


def gradients(loss: Callable[[Values], Tensor], values: Values, names: Sequence[str] | None = None) -> Values:
    """Return the gradients of ``loss`` for the named values."""
    leaves = {name: value.clone().requires_grad_(True) for name, value in values.items()}
    chosen = list(names if names is not None else leaves)
    found = torch.autograd.grad(loss(leaves), [leaves[name] for name in chosen])
    return dict(zip(chosen, found, strict=True))


def farthest(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Return the largest difference between tensors of the same names."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
