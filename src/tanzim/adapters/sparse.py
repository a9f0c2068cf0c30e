"""A linear layer with a sparse difference, and the watch over where it should have places.

Legend: T rows, I inputs, O outputs, N places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.linear import WIDE_DTYPES


@dataclass
class Growth:
    """Summed gradients of the places that may grow.

    Args:
        candidates_N: which places; None before the first backward pass.
        sums_N: their gradients, summed over whole steps.

    """

    candidates_N: Tensor | None = None
    sums_N: Tensor | None = None
    _step: tuple[Tensor, Tensor] | None = field(default=None, init=False)  # of the step in progress

    def watch(self, gradient: Tensor, count: int, *, first: bool) -> None:
        """Add the dense gradient of one backward pass.

        Args:
            gradient: of every weight, flat.
            count: how many candidates are taken where there are none yet.
            first: whether it is the step's first pass (again, where memory had run out).

        """
        if first or self._step is None:
            chosen = self.candidates_N
            if chosen is None:
                chosen = gradient.abs().topk(count).indices
            self._step = chosen, gradient[chosen.long()].float()
        else:
            self._step[1].add_(gradient[self._step[0].long()])

    def count(self) -> None:
        """Take the step's gradients into the sums, unless they overflowed."""
        if self._step is None:
            return
        candidates_N, sums_N = self._step
        self._step = None
        if bool(torch.isfinite(sums_N).all()):
            self.candidates_N = candidates_N
            self.sums_N = sums_N if self.sums_N is None else self.sums_N + sums_N


class SparseLinear(nn.Module):
    """y = x·(W + Δ)ᵀ, where Δ is zero but at some places.

    Args:
        base_layer: the frozen layer, ``nn.Linear`` or ``Conv1D``.
        places_N: flat positions in its weight, as that lies in memory.

    """

    def __init__(self, base_layer: Any, places_N: Tensor) -> None:  # noqa: ANN401 - two kinds of layer
        super().__init__()
        weight = base_layer.weight
        self.base_layer = base_layer
        self.transposed = isinstance(base_layer, Conv1D)
        small = weight.numel() < 2**31
        self.places: Tensor
        self.register_buffer("places", places_N.to(weight.device, torch.int32 if small else torch.int64))
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.delta = nn.Parameter(torch.zeros(len(places_N), dtype=dtype, device=weight.device))
        self.growth: Growth | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to x [..., I]: one product where W + δ does not round, else two."""
        weight, bias = self.base_layer.weight, self.base_layer.bias
        wide = weight.dtype in WIDE_DTYPES and weight.dtype == x.dtype
        if wide and not torch.is_autocast_enabled(x.device.type):
            return self._product(x, weight, bias)
        base: Tensor = self.base_layer(x)
        return base + self._product(x.to(base.dtype), None, None)

    def _product(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        y_TO: Tensor = _Sparse.apply(x_TI, weight, bias, self.delta, self)  # type: ignore[no-untyped-call]
        return y_TO.view(*x.shape[:-1], y_TO.shape[-1])

    def matrix(self, weight: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return W + Δ, or Δ where no weight is given, [O, I] and [I, O] for a ``Conv1D``."""
        if weight is None:
            weight = torch.zeros_like(self.base_layer.weight, dtype=dtype)
        return scattered(weight, self.places, self.delta.detach())


class _Sparse(torch.autograd.Function):
    """The product with W + Δ; neither the matrix nor its dense gradient outlives the pass."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's autograd context
        x_TI: Tensor,
        weight: Tensor | None,
        bias_O: Tensor | None,
        delta_N: Tensor,
        layer: SparseLinear,
    ) -> Tensor:
        ctx.save_for_backward(x_TI, weight)
        ctx.layer = layer
        matrix = layer.matrix(weight, x_TI.dtype)
        return functional.linear(x_TI, matrix.T if layer.transposed else matrix, bias_O)

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x_TI, weight = ctx.saved_tensors
        layer: SparseLinear = ctx.layer
        grad_x_TI = None
        if ctx.needs_input_grad[0]:
            matrix = layer.matrix(weight, x_TI.dtype)
            grad_x_TI = grad_TO @ (matrix.T if layer.transposed else matrix)
        gradient = (x_TI.T @ grad_TO if layer.transposed else grad_TO.T @ x_TI).reshape(-1)
        if layer.growth is not None:
            layer.growth.watch(gradient, len(layer.places), first=layer.delta.grad is None)
        grad_delta_N = gradient.index_select(0, layer.places).to(layer.delta.dtype)
        return grad_x_TI, None, None, grad_delta_N, None


def scattered(weight: Tensor, places_N: Tensor, delta_N: Tensor) -> Tensor:
    """Return a copy of ``weight`` with ``delta_N`` added at the flat places ``places_N``."""
    changed = weight.clone(memory_format=torch.contiguous_format)
    changed.view(-1).index_add_(0, places_N, delta_N.to(weight.dtype))
    return changed


def replace(places_N: Tensor, delta_N: Tensor, growth: Growth, share: float) -> Tensor:
    """Drop the places whose values are smallest, and grow as many where the summed gradient is largest.

    A place that would be dropped and grown at once stays as it is; where too few candidates lie outside
    the places that stay, fewer are replaced.

    Args:
        places_N: flat places; changed in place.
        delta_N: their values; changed in place, zero where a place is new.
        growth: candidates and their summed gradients.
        share: how much of N is dropped.

    Returns:
        Which of the N were replaced.

    """
    assert growth.candidates_N is not None
    assert growth.sums_N is not None
    count = int(share * len(places_N))
    dropped = delta_N.detach().abs().topk(count, largest=False).indices
    stays = torch.ones(len(places_N), dtype=torch.bool, device=places_N.device)
    stays[dropped] = False
    free = ~torch.isin(growth.candidates_N, places_N[stays])
    candidates, sums = growth.candidates_N[free].to(places_N.dtype), growth.sums_N[free]
    grown = candidates[sums.abs().topk(min(count, len(candidates))).indices]
    kept = torch.isin(places_N[dropped], grown)
    grown = grown[~torch.isin(grown, places_N[dropped])]
    changed = dropped[~kept][: len(grown)]
    places_N[changed] = grown
    delta_N[changed] = 0
    return changed


def zero_moments(state: Mapping[str, Any], shape: torch.Size, changed: Tensor) -> None:
    """Set an optimiser's moments of single values to zero.

    Args:
        state: the optimiser's, of one parameter.
        shape: the parameter's; what has another is no moment.
        changed: which of its values.

    """
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == shape:
            # In 8 bits (bitsandbytes) a moment is a place in a table, where zero is not the first.
            table = state.get(name.replace("state", "qmap")) if value.dtype == torch.uint8 else None
            value[changed] = 0 if table is None else int(table.abs().argmin())
