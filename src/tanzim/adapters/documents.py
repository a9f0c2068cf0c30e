"""Causal attention of each document of a packed row, forward and backward, on the CPU.

torch's flash attention (FlashAttention-2, arXiv:2307.08691) is called on views: the group of query
heads that shares a key head becomes the kernel's head dimension, and the key head is repeated along
it without a copy.

Legend: T tokens, K key heads, G query heads per key head, H = K·G, L tokens of a document, C head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def attend(
    query_THC: Tensor, key_TKC: Tensor, value_TKC: Tensor, borders: Sequence[int], scale: float
) -> tuple[Tensor, list[Tensor]]:
    """Return the mixed values [T, H, C], and each document's log-sum-exp for `attend_backward`."""
    groups = query_THC.shape[1] // key_TKC.shape[1]
    mixed_THC, norms = torch.empty_like(query_THC), []
    for start, end in pairwise(borders):
        query, mixed = (_grouped(x[start:end], groups) for x in (query_THC, mixed_THC))
        key, value = (_repeated(x[start:end], groups) for x in (key_TKC, value_TKC))
        result_KGLC, norm_KGL = FLASH(query, key, value, 0.0, True, scale=scale)
        mixed.copy_(result_KGLC)
        norms.append(norm_KGL)
    return mixed_THC, norms


def attend_backward(
    grad_THC: Tensor,
    forward: tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]],
    borders: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value.

    Args:
        grad_THC: gradient of the mixed values.
        forward: query, key, value, mixed values and log-sum-exps of the forward pass.
        borders: where documents begin and end.
        scale: factor on the scores.

    """
    query_THC, key_TKC, value_TKC, mixed_THC, norms = forward
    groups = query_THC.shape[1] // key_TKC.shape[1]
    grads = torch.empty_like(query_THC), torch.empty_like(key_TKC), torch.empty_like(value_TKC)
    for (start, end), norm_KGL in zip(pairwise(borders), norms, strict=True):
        grad, query, mixed = (_grouped(x[start:end], groups) for x in (grad_THC, query_THC, mixed_THC))
        key, value = (_repeated(x[start:end], groups) for x in (key_TKC, value_TKC))
        parts = FLASH_BACKWARD(grad, query, key, value, mixed, norm_KGL, 0.0, True, scale=scale)
        _grouped(grads[0][start:end], groups).copy_(parts[0])
        for whole_TKC, part_KGLC in zip(grads[1:], parts[1:], strict=True):
            torch.sum(part_KGLC, 1, out=whole_TKC[start:end].transpose(0, 1))
    return grads


def _grouped(x_LHC: Tensor, groups: int) -> Tensor:
    """View as [K, G, L, C]."""
    length, heads, size = x_LHC.shape
    return x_LHC.view(length, heads // groups, groups, size).permute(1, 2, 0, 3)


def _repeated(x_LKC: Tensor, groups: int) -> Tensor:
    """View as [K, G, L, C], every key head repeated for its group."""
    return x_LKC.transpose(0, 1).unsqueeze(1).expand(-1, groups, -1, -1)
