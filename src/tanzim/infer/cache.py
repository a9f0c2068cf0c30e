"""The KV cache of a batch whose rows come and go.

Legend: B rows, K key heads, L cached tokens (columns), C head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

HEADROOM = 64  # columns beyond the present ones, so that most steps write in place


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values, in a buffer with room to grow.

    transformers' ``DynamicLayer`` copies the whole cache at every token; this one writes the new
    column in place and copies only when the buffer is full.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys_BKLC = self._values_BKLC = torch.empty(0)
        self._length = 0

    def assign(self, keys_BKLC: Tensor, values_BKLC: Tensor) -> None:
        """Hold these keys and values from now on."""
        self._length = keys_BKLC.shape[2]
        self._keys_BKLC, self._values_BKLC = _roomy(keys_BKLC), _roomy(values_BKLC)
        self.is_initialized = True

    def held(self) -> tuple[Tensor, Tensor]:
        """Return the keys and values so far, each [B, K, L, C]."""
        return self._keys_BKLC[:, :, : self._length], self._values_BKLC[:, :, : self._length]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401 - transformers' interface
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return all of them."""
        if not self.is_initialized:
            self.assign(key_states, value_states)
            return key_states, value_states
        end = self._length + key_states.shape[2]
        if end > self._keys_BKLC.shape[2]:
            self._keys_BKLC, self._values_BKLC = (
                _roomy(x, end + end // 2) for x in (self._keys_BKLC, self._values_BKLC)
            )
        self._keys_BKLC[:, :, self._length : end] = key_states
        self._values_BKLC[:, :, self._length : end] = value_states
        self._length = end
        return self.held()

    def get_seq_length(self) -> int:
        """Return L."""
        return self._length


def _roomy(values_BKLC: Tensor, capacity: int | None = None) -> Tensor:
    """Copy into a buffer with more columns."""
    rows, heads, length, size = values_BKLC.shape
    buffer = values_BKLC.new_empty(rows, heads, capacity or length + HEADROOM, size)
    buffer[:, :, :length] = values_BKLC
    return buffer


class KVCache(Cache):
    """The keys and values of all layers, with the operations that rows joining and leaving need."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def _map(self, function: Callable[[Tensor], Tensor]) -> KVCache:
        return cache_of((function(keys), function(values)) for keys, values in self._held())

    def _held(self) -> list[tuple[Tensor, Tensor]]:
        return [cast(GrowingLayer, layer).held() for layer in self.layers]

    def repeat(self, rows: int) -> KVCache:
        """Return ``rows`` copies of a cache of one row."""
        return self._map(lambda x: x.expand(rows, -1, -1, -1))

    def select(self, rows: Tensor, first: int = 0) -> KVCache:
        """Return the given rows (repeats are welcome) without the columns before ``first``."""
        return self._map(lambda x: x[:, :, first:].index_select(0, rows))

    def join(self, other: KVCache) -> KVCache:
        """Return the rows of both, the shorter ones padded on the left."""
        pairs = zip(self._held(), other._held(), strict=True)
        return cache_of((_stack(mine[0], new[0]), _stack(mine[1], new[1])) for mine, new in pairs)


def cache_of(layers: Iterable[tuple[Tensor, Tensor]]) -> KVCache:
    """Make a cache of these keys and values."""
    result = KVCache()
    for keys_BKLC, values_BKLC in layers:
        layer = GrowingLayer()
        layer.assign(keys_BKLC, values_BKLC)
        result.layers.append(layer)
    return result


def _stack(first_BKLC: Tensor, second_BKLC: Tensor) -> Tensor:
    """Put rows under rows, aligned at the last column."""
    length = max(first_BKLC.shape[2], second_BKLC.shape[2])
    rows = first_BKLC.shape[0] + second_BKLC.shape[0]
    # Zeros: what the mask hides must still be finite, for 0 × NaN is NaN.
    result = first_BKLC.new_zeros(rows, first_BKLC.shape[1], length, first_BKLC.shape[3])
    result[: first_BKLC.shape[0], :, length - first_BKLC.shape[2] :] = first_BKLC
    result[first_BKLC.shape[0] :, :, length - second_BKLC.shape[2] :] = second_BKLC
    return result


def stack_masks(first_BL: Tensor, second_BL: Tensor) -> Tensor:
    """Put the rows of two column masks under one another, aligned at the last column."""
    length = max(first_BL.shape[1], second_BL.shape[1])
    pad = torch.nn.functional.pad
    return torch.cat([pad(mask, (length - mask.shape[1], 0)) for mask in (first_BL, second_BL)])
