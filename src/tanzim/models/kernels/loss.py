"""Cross-entropy over trained tokens only, with its gradient made in the forward pass.

The vocabulary projection is the widest matrix of a small model. Projecting only the positions that
are trained, a few hundred rows at a time, and turning each block of logits into its gradient at once
means that no logits are ever kept (the idea of Cut Cross-Entropy, arXiv:2411.09009, and of Liger
Kernel's fused loss, arXiv:2410.10989).

Legend: T tokens, N trained tokens, R rows of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MULTIPLE = 16  # rows of a product are filled up to a multiple of this, so that few shapes occur
# (logits of a chunk [R, V], which may be overwritten; their rows [R]) → (loss [R], its gradient [R, V])
RowsLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def trained_token_loss(  # noqa: PLR0913 - one optional number for each thing a head may do
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    weights_T: Tensor,
    *,
    scale: float = 1.0,
    chunk: int = 256,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Return Σ weight · cross-entropy · scale over the tokens whose weight is not 0.

    Args:
        hidden_TD: final hidden states, after the last norm (and any constant factor on the logits).
        weight_VD: the vocabulary matrix (lm_head, tied or not).
        targets_T: the token to predict *at* each position; ignored where the weight is 0.
        weights_T: loss weight of each position.
        scale: constant factor, such as 1 / trained tokens of the step.
        chunk: rows projected at once.
        bias_V: the projection's bias.
        softcap: logits are held within ±softcap (Gemma 2, arXiv:2408.00118).
        smoothing: share ε of the target that is spread over the whole vocabulary, so that the loss is
            −(1−ε)·log p(target) − ε·mean log p (Szegedy et al. 2015, arXiv:1512.00567).

    Returns:
        A float32 scalar (float64 for float64 inputs), differentiable once, with respect to
        ``hidden_TD``, ``weight_VD`` and ``bias_V`` where they require it.

    """

    def rows_loss(logits_RV: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(logits_RV, targets_T[rows_R], smoothing)

    return projected_loss(
        hidden_TD, weight_VD, weights_T * scale, rows_loss, chunk=chunk, bias_V=bias_V, softcap=softcap
    )


def projected_loss(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    weights_T: Tensor,
    rows_loss: RowsLoss,
    *,
    chunk: int = 256,
    bias_V: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return Σ weight · loss over the rows whose weight is not 0, for a loss of each row's logits alone.

    Args:
        hidden_TD: final hidden states.
        weight_VD: the vocabulary matrix.
        weights_T: loss weight of each position.
        rows_loss: the loss of a chunk of rows and its gradient with respect to their logits, which are
            in at least float32.
        chunk: rows projected at once.
        bias_V: the projection's bias.
        softcap: logits are held within ±softcap.

    """
    loss: Tensor = _ProjectedLoss.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_VD, bias_V, weights_T, rows_loss, chunk, softcap
    )
    return loss


class _ProjectedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's autograd context
        hidden_TD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        weights_T: Tensor,
        rows_loss: RowsLoss,
        chunk: int,
        softcap: float | None,
    ) -> Tensor:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        wide = torch.promote_types(hidden_TD.dtype, torch.float32)
        rows_N = weights_T.nonzero().squeeze(1)
        grad_hidden_ND = hidden_TD.new_empty((len(rows_N), hidden_TD.shape[1])) if need_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if need_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=wide) if need_bias and bias_V is not None else None
        loss = torch.zeros((), dtype=wide, device=hidden_TD.device)
        for start in range(0, len(rows_N), chunk):
            rows_R = rows_N[start : start + chunk]
            count = len(rows_R)
            # oneDNN compiles and keeps a kernel for every number of rows.
            rows_R = torch.cat([rows_R, rows_R[-1:].expand(-count % MULTIPLE)])
            hidden_RD = hidden_TD[rows_R]
            logits_RV = project(hidden_RD, weight_VD, bias_V, softcap)
            slope_RV = None if softcap is None else 1 - (logits_RV / softcap).square_()
            share_R = weights_T[rows_R].to(wide)
            share_R[count:] = 0
            loss_R, grad_RV = rows_loss(logits_RV, rows_R)
            loss += loss_R.dot(share_R)
            if not (need_hidden or need_weight or need_bias):
                continue
            if slope_RV is not None:
                grad_RV.mul_(slope_RV)
            grad_RV.mul_(share_R[:, None])
            if grad_bias_V is not None:
                grad_bias_V.add_(grad_RV.sum(0))
            narrow_RV = grad_RV.to(weight_VD.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND[start : start + chunk] = (narrow_RV @ weight_VD)[:count]
            if grad_weight_VD is not None:
                _accumulate(grad_weight_VD, narrow_RV, hidden_RD)
        ctx.save_for_backward(rows_N, grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.shape, ctx.dtypes = hidden_TD.shape, (weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        rows_N, grad_hidden_ND, grad_weight_VD, grad_bias_V = ctx.saved_tensors
        hidden = weight = bias = None
        if grad_hidden_ND is not None:
            hidden = grad_hidden_ND.new_zeros(ctx.shape)
            hidden[rows_N] = grad_hidden_ND * grad.to(grad_hidden_ND.dtype)
        if grad_weight_VD is not None:
            weight = (grad_weight_VD * grad).to(ctx.dtypes[0])
        if grad_bias_V is not None:
            bias = (grad_bias_V * grad).to(ctx.dtypes[1])
        return hidden, weight, bias, None, None, None, None


def project(hidden_RD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None) -> Tensor:
    """Return the logits [R, V] in at least float32, held within ±softcap if there is one."""
    raw_RV = torch.nn.functional.linear(hidden_RD, weight_VD, bias_V)
    raw_RV = raw_RV.to(torch.promote_types(raw_RV.dtype, torch.float32))
    return raw_RV if softcap is None else raw_RV.div_(softcap).tanh_().mul_(softcap)


def cross_entropy(logits_RV: Tensor, targets_R: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy [R] and its gradient [R, V], which overwrites the logits."""
    target_R1 = targets_R[:, None]
    wanted_R1 = logits_RV.gather(1, target_R1)
    if smoothing:
        wanted_R1.mul_(1 - smoothing).add_(logits_RV.mean(dim=1, keepdim=True), alpha=smoothing)
    # One pass of exponentials serves both the log-sum-exp and the softmax.
    largest_R1 = logits_RV.amax(dim=1, keepdim=True)
    grad_RV = logits_RV.sub_(largest_R1).exp_()
    total_R1 = grad_RV.sum(dim=1, keepdim=True)
    loss_R = (total_R1.log() + largest_R1 - wanted_R1).squeeze(1)
    grad_RV.div_(total_R1)
    grad_RV.scatter_add_(1, target_R1, grad_RV.new_full(target_R1.shape, smoothing - 1.0))
    if smoothing:
        grad_RV.sub_(smoothing / grad_RV.shape[1])
    return loss_R, grad_RV


def _accumulate(total_VD: Tensor, grad_RV: Tensor, hidden_RD: Tensor) -> None:
    """Add gradᵀ · hidden to ``total_VD`` without a second matrix of its size."""
    if total_VD.dtype == grad_RV.dtype:
        total_VD.addmm_(grad_RV.T, hidden_RD)
    else:
        total_VD.add_(grad_RV.T @ hidden_RD)
