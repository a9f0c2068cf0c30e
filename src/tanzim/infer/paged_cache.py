"""Keys and values in pages, and the attention that reads them: compiled on a CPU, in torch's words elsewhere.

Legend: N tokens of a pass, B rows that decode one token, P pages, T tokens of a page, L cached tokens, H
query heads, K key heads, C head size, O outputs of the joined query, key and value projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tanzim.infer.kernels import PAGE, attend_pages, compiles, rotate_and_store
from tanzim.infer.threads import shared


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one prompt within a pass.

    Args:
        start: its first token in the pass.
        stop: after its last.
        pages: of the sequence.
        length: tokens of the sequence when this piece is computed.

    """

    start: int
    stop: int
    pages: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass: first the rows that decode, then pieces of prompts.

    Args:
        ids_N: all tokens.
        position_N: their places in their own sequences.
        page_N: the pages they go to.
        pages_BL: pages of each decoding row, filled up with any.
        length_B: cached tokens of each, its new one included.
        chunks: the pieces of prompts.
        wanted: tokens whose logits are wanted.

    """

    ids_N: Tensor
    position_N: Tensor
    page_N: Tensor
    pages_BL: Tensor
    length_B: Tensor
    chunks: tuple[Chunk, ...]
    wanted: Tensor


class PagedCache:
    """All layers' keys and values. Memory is taken as pages are first written.

    Args:
        layers: how many.
        pages: of the pool, per layer.
        heads: H, K and C.
        dtype: of keys and values.
        device: where they lie.
        scale: factor on the scores.

    """

    def __init__(
        self,
        layers: int,
        pages: int,
        heads: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        scale: float,
    ) -> None:
        self.heads, self.key_heads, self.size = heads
        self.pages, self._scale = pages, scale
        self.compiled = (
            device.type == "cpu" and dtype == torch.float32 and self.size % PAGE == 0 and compiles()
        )
        shape = pages, self.key_heads, self.size, PAGE
        other = pages, self.key_heads, PAGE, self.size
        self._keys = [_zeros(shape, dtype, device) for _ in range(layers)]
        self._values = [_zeros(other, dtype, device) for _ in range(layers)]

    def attend(self, layer: int, qkv_NO: Tensor, cosine_LC: Tensor, sine_LC: Tensor, step: Pass) -> Tensor:
        """Store a layer's new keys and values; return what each token sees, [N, H · C].

        Args:
            layer: its number.
            qkv_NO: queries, keys and values of the pass; overwritten. Rows beyond the pass are ignored.
            cosine_LC: of the rotary angle, by position.
            sine_LC: likewise.
            step: the pass.

        """
        keys, values = self._keys[layer], self._values[layer]
        out_NO = qkv_NO.new_zeros(qkv_NO.shape[0], self.heads * self.size)
        if self.compiled:
            self._store_compiled(qkv_NO, cosine_LC, sine_LC, step, keys, values)
            self._decode_compiled(qkv_NO, step, keys, values, out_NO)
        else:
            self._store(qkv_NO, cosine_LC, sine_LC, step, keys, values)
            self._decode(qkv_NO, step, keys, values, out_NO)
        for chunk in step.chunks:
            self._prefill(qkv_NO, chunk, keys, values, out_NO)
        return out_NO

    def _store_compiled(self, qkv_NO: Tensor, cosine_LC: Tensor, sine_LC: Tensor, step: Pass,
                        keys: Tensor, values: Tensor) -> None:  # fmt: skip
        rotate_and_store()(
            qkv_NO.numpy(), cosine_LC.numpy(), sine_LC.numpy(), step.position_N.numpy(), step.page_N.numpy(),
            self.heads, keys.numpy(), values.numpy(),
        )  # fmt: skip

    def _decode_compiled(self, qkv_NO: Tensor, step: Pass, keys: Tensor, values: Tensor,
                         out_NO: Tensor) -> None:  # fmt: skip
        rows, kernel = step.length_B.shape[0], attend_pages()
        given = (
            qkv_NO.numpy(), keys.numpy(), values.numpy(), step.pages_BL.numpy(), step.length_B.numpy(),
            np.float32(self._scale), out_NO.numpy(),
        )  # fmt: skip
        work = step.pages_BL.numel() * PAGE * self.key_heads * self.size
        shared(lambda first, last: kernel(*given, first, last), rows, work)

    def _store(self, qkv_NO: Tensor, cosine_LC: Tensor, sine_LC: Tensor, step: Pass,
               keys: Tensor, values: Tensor) -> None:  # fmt: skip
        count, turned = step.page_N.shape[0], (self.heads + self.key_heads) * self.size
        x_NHC = qkv_NO[:count, :turned].view(count, -1, self.size)
        cosine, sine = (x_LC[step.position_N][:, None] for x_LC in (cosine_LC, sine_LC))
        low, high = x_NHC.chunk(2, dim=-1)
        x_NHC.copy_(x_NHC * cosine + torch.cat([-high, low], dim=-1) * sine)
        offset_N = step.position_N % PAGE
        keys[step.page_N, :, :, offset_N] = x_NHC[:, self.heads :]
        values[step.page_N, :, offset_N] = qkv_NO[:count, turned:].view(count, -1, self.size)

    def _decode(self, qkv_NO: Tensor, step: Pass, keys: Tensor, values: Tensor, out_NO: Tensor) -> None:
        rows = step.length_B.shape[0]
        if not rows:
            return
        q_BKGC = qkv_NO[:rows, : self.heads * self.size].reshape(rows, self.key_heads, -1, self.size)
        keys_BKLC = keys[step.pages_BL].permute(0, 2, 1, 4, 3).flatten(2, 3)
        values_BKLC = values[step.pages_BL].transpose(1, 2).flatten(2, 3)
        columns = torch.arange(keys_BKLC.shape[2], device=keys.device)
        mask = (columns < step.length_B[:, None])[:, None, None]
        mixed = functional.scaled_dot_product_attention(
            q_BKGC, keys_BKLC, values_BKLC, attn_mask=mask, scale=self._scale
        )
        out_NO[:rows] = mixed.reshape(rows, -1)

    def _prefill(self, qkv_NO: Tensor, chunk: Chunk, keys: Tensor, values: Tensor, out_NO: Tensor) -> None:
        pages = torch.tensor(chunk.pages, device=keys.device)
        keys_KLC = keys[pages].permute(1, 0, 3, 2).flatten(1, 2)[:, : chunk.length]
        values_KLC = values[pages].transpose(0, 1).flatten(1, 2)[:, : chunk.length]
        new = chunk.stop - chunk.start
        q_THC = qkv_NO[chunk.start : chunk.stop, : self.heads * self.size].view(new, -1, self.size)
        mask = None
        if chunk.length > new:
            mask = torch.ones(new, chunk.length, dtype=torch.bool, device=keys.device)
            mask = mask.tril(chunk.length - new)
        mixed = functional.scaled_dot_product_attention(
            q_THC.transpose(0, 1)[None], keys_KLC[None], values_KLC[None],
            attn_mask=mask, is_causal=mask is None, scale=self._scale, enable_gqa=True,
        )  # fmt: skip
        out_NO[chunk.start : chunk.stop] = mixed[0].transpose(0, 1).flatten(1)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros (what a mask hides must still be finite) that take memory only as they are written."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))  # torch's own would touch it all
    return torch.zeros(shape, dtype=dtype, device=device)


def pages_of(tables: Sequence[Sequence[int]]) -> Tensor:
    """Return the pages of several sequences as [B, L], filled up with 0."""
    longest = max(map(len, tables), default=0)
    rows = [[*pages, *[0] * (longest - len(pages))] for pages in tables]
    return torch.tensor(rows, dtype=torch.int64).view(len(tables), longest)
