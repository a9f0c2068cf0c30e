"""Attention for packed rows: every document of a row attends to itself alone.

Registered under the name `ATTENTION` in transformers' attention interface, so that any model that
reads it runs unchanged. A packed row is named by the keyword arguments of transformers'
``FlashAttentionKwargs`` (``cu_seq_lens_q``…); without them this is ordinary causal attention with a
padding mask and a KV cache.

Legend: B rows, H query heads, K key heads, T tokens, L tokens of one document, S keys, C head size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tanzim.core.errors import ModelError
from tanzim.models.kernels import matmul

ATTENTION = "tanzim"
# What flash attention's variable-length kernel computes (FlashAttention-2, arXiv:2307.08691).
VARLEN_DTYPES = (torch.bfloat16, torch.float16)
VARLEN_HEAD_SIZE = 256


class LazyMask:
    """The mask of a call without padding, built only if the call turns out not to be packed.

    A packed row of T tokens never needs its T × T mask; whether the row is packed is known to the
    attention function alone.

    Args:
        arguments: what transformers' ``sdpa_mask`` takes.

    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.window: int | None = arguments.get("local_size")
        self._arguments = arguments
        self._dense: Tensor | None = None
        self._built = False

    def dense(self) -> Tensor | None:
        """Return the boolean mask [B, 1, T, S], or None where plain causal attention does."""
        if not self._built:
            self._dense = sdpa_mask(**self._arguments)
            self._built = True
        return self._dense


def make_mask(**arguments: Any) -> Tensor | LazyMask | None:  # noqa: ANN401 - transformers' interface
    """Make the mask of one forward pass (transformers' ``AttentionMaskInterface``)."""
    plain = arguments.get("attention_mask") is None and not arguments.get("use_vmap", False)
    if plain and arguments["q_length"] == arguments["kv_length"]:
        return LazyMask(arguments)
    return sdpa_mask(**arguments)


def attention(
    module: nn.Module,
    query_BHTC: Tensor,
    key_BKSC: Tensor,
    value_BKSC: Tensor,
    attention_mask: Tensor | LazyMask | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ANN401 - transformers' interface
) -> tuple[Tensor, None]:
    """Attend within each document (transformers' ``AttentionInterface``), causally if the model does.

    Args:
        module: the model's attention module.
        query_BHTC: queries.
        key_BKSC: keys; K divides H.
        value_BKSC: values.
        attention_mask: True where a query may look, from `make_mask`.
        dropout: share of attention weights dropped.
        scaling: factor on the scores; None is 1/√C.
        kwargs: ``cu_seq_lens_q``, ``cu_seq_lens_k``, ``max_length_q`` and ``max_length_k`` make the row
            a packed one; ``sliding_window`` and ``softcap`` are honoured.

    Returns:
        The mixed values [B, T, H, C], and no attention weights.

    Raises:
        ModelError: the model asks for attention that this cannot compute.

    """
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} needs '{name}' in its attention, which is not supported",
                fix="choose a base model with ordinary causal attention",
            )
    borders = kwargs.get("cu_seq_lens_q")
    softcap = kwargs.get("softcap")
    if borders is not None:
        _check_packed(module, query_BHTC, key_BKSC, attention_mask, kwargs)
        causal = getattr(module, "is_causal", True)
        return _packed(query_BHTC, key_BKSC, value_BKSC, causal, dropout, scaling, kwargs), None
    mask = attention_mask.dense() if isinstance(attention_mask, LazyMask) else attention_mask
    if softcap is not None:
        mixed_BHTC = _capped(query_BHTC, key_BKSC, value_BKSC, mask, scaling, softcap, dropout)
        return mixed_BHTC.transpose(1, 2), None
    mixed_BTHC, _ = sdpa_attention_forward(
        module, query_BHTC, key_BKSC, value_BKSC, mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return mixed_BTHC, None


def _check_packed(
    module: nn.Module,
    query_BHTC: Tensor,
    key_BKSC: Tensor,
    attention_mask: Tensor | LazyMask | None,
    kwargs: dict[str, Any],
) -> None:
    """Refuse what would let one document see another, or see less than the model means it to."""
    name = type(module).__name__
    borders, key_borders = kwargs["cu_seq_lens_q"], kwargs.get("cu_seq_lens_k")
    if query_BHTC.shape[0] != 1 or query_BHTC.shape[2] != key_BKSC.shape[2]:
        shape = f"{query_BHTC.shape[0]} × {query_BHTC.shape[2]} queries, {key_BKSC.shape[2]} keys"
        raise ModelError(f"packing takes one row and no KV cache; got {shape}", where=name)
    if key_borders is not None and key_borders is not borders and not torch.equal(key_borders, borders):
        raise ModelError("cu_seq_lens_q and cu_seq_lens_k differ, which is not supported", where=name)
    if isinstance(attention_mask, Tensor):
        raise ModelError(
            "a packed row came with an attention mask of its own", where=name, fix="leave it out"
        )
    window = attention_mask.window if attention_mask is not None else None
    bounded = window is not None or kwargs.get("sliding_window") is not None
    if not getattr(module, "is_causal", True) and (bounded or kwargs.get("softcap") is not None):
        raise ModelError("packing needs causal attention here, and this layer looks ahead", where=name)
    if window is not None and kwargs.get("sliding_window") is None and kwargs["max_length_q"] > window:
        raise ModelError(
            f"documents of {kwargs['max_length_q']} tokens exceed this layer's local attention of {window}",
            where=name,
            fix=f"set model.max_length to {window}, or train.packing to false",
        )


def _packed(
    query_1HTC: Tensor,
    key_1KTC: Tensor,
    value_1KTC: Tensor,
    causal: bool,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Tensor:
    """Attend within documents; returns [1, T, H, C]."""
    borders, window, softcap = kwargs["cu_seq_lens_q"], kwargs.get("sliding_window"), kwargs.get("softcap")
    flash = query_1HTC.dtype in VARLEN_DTYPES and value_1KTC.shape[-1] <= VARLEN_HEAD_SIZE
    if query_1HTC.is_cuda and flash and softcap is None and dropout == 0:
        return _varlen(
            query_1HTC, key_1KTC, value_1KTC, borders, kwargs["max_length_q"], causal, window, scaling
        )
    starts: list[int] = borders.tolist()
    mixed = []
    for start, end in pairwise(starts):
        query, key, value = (x[:, :, start:end] for x in (query_1HTC, key_1KTC, value_1KTC))
        mask = None
        if softcap is not None or (window is not None and end - start > window):
            mask = causal_mask(end - start, window, query.device)
        if softcap is not None:
            mixed_1HLC = _capped(query, key, value, mask, scaling, softcap, dropout)
        else:
            mixed_1HLC = functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        mixed.append(mixed_1HLC.transpose(1, 2))
    return torch.cat(mixed, dim=1)


def _varlen(
    query_1HTC: Tensor,
    key_1KTC: Tensor,
    value_1KTC: Tensor,
    borders: Tensor,
    longest: int,
    causal: bool,
    window: int | None,
    scaling: float | None,
) -> Tensor:
    """Attend within documents through torch's variable-length kernel; returns [1, T, H, C]."""
    from torch.nn.attention.varlen import varlen_attn

    mixed_THC = varlen_attn(
        query_1HTC[0].transpose(0, 1),
        key_1KTC[0].transpose(0, 1),
        value_1KTC[0].transpose(0, 1),
        borders,
        borders,
        int(longest),
        int(longest),
        scale=scaling,
        # transformers counts the token itself, the kernel only those before it.
        window_size=(-1 if window is None else window - 1, 0 if causal else -1),
        enable_gqa=query_1HTC.shape[1] != key_1KTC.shape[1],
    )
    assert isinstance(mixed_THC, Tensor)
    return mixed_THC[None]


def causal_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """Return [L, L], True where a token (row) may look: itself and those before, at most ``window``."""
    mask_LL = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask_LL if window is None else mask_LL.triu(1 - window)


def _capped(
    query_BHTC: Tensor,
    key_BKSC: Tensor,
    value_BKSC: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
    dropout: float,
) -> Tensor:
    """Attend with scores held within ±softcap (Gemma 2, arXiv:2408.00118); returns [B, H, T, C]."""
    groups = query_BHTC.shape[1] // key_BKSC.shape[1]
    key_BHSC, value_BHSC = repeat_kv(key_BKSC, groups), repeat_kv(value_BKSC, groups)
    scale = query_BHTC.shape[-1] ** -0.5 if scaling is None else scaling
    score_BHTS = softcap * torch.tanh(query_BHTC @ key_BHSC.mT * (scale / softcap))
    if mask is None and score_BHTS.shape[-2] > 1:
        mask = causal_mask(score_BHTS.shape[-1], None, score_BHTS.device)
    if mask is not None:
        score_BHTS = score_BHTS.masked_fill(~mask, torch.finfo(score_BHTS.dtype).min)
    share_BHTS = functional.softmax(score_BHTS, dim=-1, dtype=torch.float32).to(query_BHTC.dtype)
    return functional.dropout(share_BHTS, dropout) @ value_BHSC


def register() -> None:
    """Make `ATTENTION` known to transformers, and the fastest matrix product to torch.

    Calling it again changes nothing.
    """
    matmul.register()
    if ATTENTION not in AttentionInterface().valid_keys():  # type: ignore[no-untyped-call]
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, make_mask)


def hide_from_compiler() -> None:
    """Let torch.compile call `ATTENTION` and not look into it: it would compile it for every row anew."""
    whole = torch.compiler.disable(attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(ATTENTION, whole)
