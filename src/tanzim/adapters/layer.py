"""One decoder layer of the Llama family with LoRA, as one autograd Function on a packed row.

It keeps what is dear to compute (queries, keys, values, mixed values, gate and up) and recomputes
what is cheap (norms, SiLU, effective matrices). The feed-forward part goes through in chunks of rows,
so that everything between its products stays in cache.

Legend: T tokens, R rows of a chunk, D hidden size, F feed-forward size, H query heads, K key heads,
C head size, O outputs and I inputs of a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tanzim.adapters import rows
from tanzim.adapters.documents import attend, attend_backward

CHUNK = 256  # rows: gate, up and their gradients of a small model fit the second-level cache
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Projection:
    """A frozen linear layer and its adapter, if it has one: W + scale · B·A.

    Args:
        weight_OI: the base matrix.
        bias_O: the base bias.
        scale: the adapter's factor.
        order_O: the order its outputs are wanted in.

    """

    weight_OI: Tensor
    bias_O: Tensor | None
    scale: float
    order_O: Tensor | None


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm's weight and epsilon."""

    weight_D: Tensor
    epsilon: float


@dataclass(frozen=True, slots=True)
class Layer:
    """What a decoder layer is made of, besides the adapter matrices.

    Args:
        projections: in the order of `NAMES`.
        attention_norm: before attention.
        feed_forward_norm: before the feed-forward part.
        head_norms: of queries and of keys (Qwen3), in rotary order.
        head_size: C.
        scaling: factor on the scores.

    """

    projections: tuple[Projection, ...]
    attention_norm: Norm
    feed_forward_norm: Norm
    head_norms: tuple[Norm, Norm] | None
    head_size: int
    scaling: float


class Adapted:
    """A projection with its adapter matrices, formed for one pass, and the adapter's gradients.

    Args:
        projection: the frozen part.
        a_RI: None where it has no adapter.
        b_OR: likewise.

    """

    def __init__(self, projection: Projection, a_RI: Tensor | None, b_OR: Tensor | None) -> None:
        self.bias_O = projection.bias_O
        order = projection.order_O
        matrix_OI = projection.weight_OI
        if order is not None:
            matrix_OI = matrix_OI[order]
            self.bias_O = None if self.bias_O is None else self.bias_O[order]
        self.order_O, self.a_RI, self.scaled_b_OR = order, a_RI, None
        if a_RI is not None and b_OR is not None:
            self.scaled_b_OR = (b_OR if order is None else b_OR[order]) * projection.scale
            matrix_OI = torch.mm(self.scaled_b_OR, a_RI).add_(matrix_OI)
        self.matrix_OI = matrix_OI
        self.scale = projection.scale
        self.grad_a_RI: Tensor | None = None
        self.grad_b_RO: Tensor | None = None

    def __call__(self, x_TI: Tensor) -> Tensor:
        """Return x · (W + s·B·A)ᵀ + bias."""
        y_TO = torch.mm(x_TI, self.matrix_OI.t())
        return y_TO if self.bias_O is None else y_TO.add_(self.bias_O)

    def backward(self, grad_TO: Tensor) -> Tensor:
        """Return the gradient with respect to the input."""
        return torch.mm(grad_TO, self.matrix_OI)

    def accumulate(self, grad_TO: Tensor, x_TI: Tensor) -> None:
        """Add the gradients of A and B from these rows."""
        if self.a_RI is None or self.scaled_b_OR is None:
            return
        a_RI = torch.mm(torch.mm(grad_TO, self.scaled_b_OR).t(), x_TI)
        b_RO = torch.mm(torch.mm(x_TI, self.a_RI.t()).t(), grad_TO)
        self.grad_a_RI = a_RI if self.grad_a_RI is None else self.grad_a_RI.add_(a_RI)
        self.grad_b_RO = b_RO if self.grad_b_RO is None else self.grad_b_RO.add_(b_RO)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of A and B."""
        if self.grad_a_RI is None or self.grad_b_RO is None:
            return None, None
        b_OR = self.grad_b_RO.t().mul(self.scale)
        if self.order_O is not None:
            b_OR = torch.empty_like(b_OR).index_copy_(0, self.order_O, b_OR)
        return self.grad_a_RI, b_OR


class DecoderLayer(torch.autograd.Function):
    """``apply(hidden_1TD, rotation_T1P, layer, borders, *A and B of each projection)`` → hidden_1TD."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's autograd context
        hidden_1TD: Tensor,
        rotation_T1P: Tensor,
        layer: Layer,
        borders: Sequence[int],
        *lora: Tensor | None,
    ) -> Tensor:
        """Compute the layer."""
        hidden_TD = hidden_1TD[0]
        query, key, value, out, gate, up, down = _adapted(layer, lora)
        normed_TD = _normalise(hidden_TD, layer.attention_norm)
        heads = [_heads(part(normed_TD), layer.head_size) for part in (query, key, value)]
        del normed_TD
        raw = heads[:2]
        if layer.head_norms is not None:
            for index, norm in enumerate(layer.head_norms):
                heads[index] = rows.normalise(raw[index], norm.weight_D, norm.epsilon)
        for x_THC in heads[:2]:
            rows.rotate_(x_THC, rotation_T1P)
        mixed_THC, norms = attend(heads[0], heads[1], heads[2], borders, layer.scaling)
        middle_TD = out(mixed_THC.flatten(1)).add_(hidden_TD)
        result_TD = torch.empty_like(middle_TD)
        kept = []
        norm = layer.feed_forward_norm
        for middle_RD, result_RD in _chunks(middle_TD, result_TD):
            normed_RD = rows.normalise(middle_RD, norm.weight_D, norm.epsilon)
            gate_RF, up_RF = gate(normed_RD), up(normed_RD)
            torch.add(middle_RD, down(rows.gated(gate_RF, up_RF)), out=result_RD)
            kept.append((gate_RF, up_RF))
        ctx.save_for_backward(hidden_1TD, rotation_T1P, *lora)
        ctx.layer, ctx.borders, ctx.kept, ctx.middle_TD = layer, borders, kept, middle_TD
        ctx.attention = (*heads, mixed_THC, norms)
        ctx.raw = raw if layer.head_norms is not None else None
        return result_TD[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_1TD: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Compute the gradients of the input and of every A and B."""
        hidden_1TD, rotation_T1P, *lora = ctx.saved_tensors
        layer: Layer = ctx.layer
        parts = _adapted(layer, lora)
        query, key, value, out = parts[:4]
        grad_TD = _feed_forward_backward(grad_1TD[0], ctx, parts[4:])
        mixed_TI = ctx.attention[3].flatten(1)
        out.accumulate(grad_TD, mixed_TI)
        grad_THC = _heads(out.backward(grad_TD), layer.head_size)
        grads = attend_backward(grad_THC, ctx.attention, ctx.borders, layer.scaling)
        ctx.attention = None
        del grad_THC, mixed_TI
        for grad_x_THC in grads[:2]:
            rows.rotate_(grad_x_THC, rotation_T1P.conj().resolve_conj())
        if layer.head_norms is not None:
            for norm, raw_THC, grad_x_THC in zip(layer.head_norms, ctx.raw, grads[:2], strict=True):
                rows.normalise_backward(grad_x_THC, raw_THC, norm.weight_D, norm.epsilon)
        normed_TD = _normalise(hidden_1TD[0], layer.attention_norm)
        flat = [grad.flatten(1) for grad in grads]
        for part, grad_TO in zip((query, key, value), flat, strict=True):
            part.accumulate(grad_TO, normed_TD)
        gradients = [gradient for part in parts for gradient in part.gradients()]
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, *gradients
        del normed_TD
        inner_TD = query.backward(flat[0]).add_(key.backward(flat[1])).add_(value.backward(flat[2]))
        norm = layer.attention_norm
        for inner_RD, hidden_RD in _chunks(inner_TD, hidden_1TD[0]):
            rows.normalise_backward(inner_RD, hidden_RD, norm.weight_D, norm.epsilon)
        return inner_TD.add_(grad_TD)[None], None, None, None, *gradients


def _feed_forward_backward(grad_TD: Tensor, ctx: Any, parts: Sequence[Adapted]) -> Tensor:  # noqa: ANN401
    """Return the gradient of the residual stream between attention and feed-forward."""
    gate, up, down = parts
    norm: Norm = ctx.layer.feed_forward_norm
    result_TD = torch.empty_like(grad_TD)
    for index, chunk in enumerate(_chunks(grad_TD, ctx.middle_TD, result_TD)):
        grad_RD, middle_RD, result_RD = chunk
        gate_RF, up_RF = ctx.kept[index]
        ctx.kept[index] = None
        inner_RF, grad_gate_RF, grad_up_RF = rows.gated_backward(down.backward(grad_RD), gate_RF, up_RF)
        down.accumulate(grad_RD, inner_RF)
        normed_RD = rows.normalise(middle_RD, norm.weight_D, norm.epsilon)
        gate.accumulate(grad_gate_RF, normed_RD)
        up.accumulate(grad_up_RF, normed_RD)
        grad_normed_RD = gate.backward(grad_gate_RF).add_(up.backward(grad_up_RF))
        rows.normalise_backward(grad_normed_RD, middle_RD, norm.weight_D, norm.epsilon)
        torch.add(grad_RD, grad_normed_RD, out=result_RD)
    ctx.middle_TD = None
    return result_TD


def _adapted(layer: Layer, lora: Sequence[Tensor | None]) -> list[Adapted]:
    return [
        Adapted(projection, lora[2 * index], lora[2 * index + 1])
        for index, projection in enumerate(layer.projections)
    ]


def _heads(x_TO: Tensor, size: int) -> Tensor:
    """View [T, heads · C] as [T, heads, C]."""
    return x_TO.view(x_TO.shape[0], -1, size)


def _normalise(x_TD: Tensor, norm: Norm) -> Tensor:
    """Return RMSNorm of all rows, chunk by chunk."""
    result_TD = torch.empty_like(x_TD)
    for x_RD, result_RD in _chunks(x_TD, result_TD):
        rows.normalise(x_RD, norm.weight_D, norm.epsilon, out=result_RD)
    return result_TD


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of the same rows of every tensor."""
    for start in range(0, tensors[0].shape[0], CHUNK):
        yield tuple(x[start : start + CHUNK] for x in tensors)
