"""The element-wise parts of a decoder layer and their gradients, over rows that stay in cache.

Legend: R rows (tokens), D hidden size, F feed-forward size, H heads, C head size.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


def normalise(x_RD: Tensor, weight_D: Tensor, epsilon: float, out: Tensor | None = None) -> Tensor:
    """Return RMSNorm of the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    return torch.mul(x_RD, inverse_rms(x_RD, epsilon), out=out).mul_(weight_D)


def inverse_rms(x_RD: Tensor, epsilon: float) -> Tensor:
    """Return 1 / √(mean of squares + epsilon) of the last dimension, [R, 1]."""
    norm_R1: Tensor = torch.linalg.vector_norm(x_RD, dim=-1, keepdim=True)
    mean_R1 = norm_R1.square_().div_(x_RD.shape[-1])
    return mean_R1.add_(epsilon).rsqrt_()


def normalise_backward(grad_RD: Tensor, x_RD: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
    """Return the gradient of `normalise` with respect to its input; ``grad_RD`` is overwritten.

    With r = 1 / rms: dx = r·(g·w) - x · r³ · mean(x · g·w).
    """
    inverse_R1 = inverse_rms(x_RD, epsilon)
    grad_RD.mul_(weight_D)
    mean_R1 = torch.linalg.vecdot(grad_RD, x_RD).unsqueeze(-1).div_(x_RD.shape[-1])
    return grad_RD.mul_(inverse_R1).addcmul_(x_RD, mean_R1.mul_(inverse_R1.pow(3)), value=-1)


def gated(gate_RF: Tensor, up_RF: Tensor) -> Tensor:
    """Return SiLU(gate) · up (SwiGLU, Shazeer 2020, arXiv:2002.05202)."""
    return functional.silu(gate_RF).mul_(up_RF)


def gated_backward(grad_RF: Tensor, gate_RF: Tensor, up_RF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the product again, and its gradients with respect to gate and up; ``grad_RF`` is overwritten."""
    silu_RF = functional.silu(gate_RF)
    grad_up_RF = silu_RF * grad_RF
    silu_RF.mul_(up_RF)
    grad_RF.mul_(up_RF)
    grad_gate_RF = torch.ops.aten.silu_backward.default(grad_RF, gate_RF)
    return silu_RF, grad_gate_RF, grad_up_RF


def rotations(cos_RC: Tensor, sin_RC: Tensor) -> Tensor:
    """Return the rotary angles as complex numbers, [R, 1, C/2] (RoFormer, arXiv:2104.09864)."""
    half = cos_RC.shape[-1] // 2
    return torch.complex(cos_RC[:, :half].contiguous(), sin_RC[:, :half].contiguous())[:, None]


def rotate_(x_RHC: Tensor, rotation_R1P: Tensor) -> None:
    """Turn the pairs (0, 1), (2, 3), … of each head in place.

    transformers pairs i with i + C/2; the rows of the query and key matrices are reordered by
    `interleaved` to bring such pairs side by side, which leaves every score what it was.
    """
    pairs_RHP = torch.view_as_complex(x_RHC.view(*x_RHC.shape[:2], -1, 2))
    pairs_RHP.mul_(rotation_R1P)


@cache
def interleaved(heads: int, head_size: int) -> Tensor:
    """Return the order of a query or key matrix's rows that brings rotary pairs side by side, [H·C]."""
    rows_HC = torch.arange(heads * head_size).view(heads, 2, head_size // 2)
    return rows_HC.transpose(1, 2).reshape(-1)
