"""One forward pass of a causal model over a batch with a KV cache.

Legend: B rows, T new tokens, L cached and new tokens (columns), V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from tanzim.infer.cache import KVCache


class Forward:
    """Calls the model with what its ``forward`` understands.

    Args:
        model: a transformers causal language model (the bare one, not its PEFT wrapper).

    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._parameters = frozenset(inspect.signature(model.forward).parameters)
        layers = DynamicCache(config=model.config).layers
        # Recurrent layers (Mamba, linear attention) keep a state, not columns: one row at a time.
        self.single_row = any(not isinstance(layer, DynamicLayer) for layer in layers)
        # A window counts columns, so no column may stand between a row's tokens.
        self.contiguous = self.single_row or any(getattr(layer, "is_sliding", False) for layer in layers)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def context_length(self) -> int | None:
        """The most tokens, prompt and answer together, that the model was made for."""
        config = self.model.config.get_text_config(decoder=True)
        length: int | None = getattr(config, "max_position_embeddings", None)
        return length

    def new_cache(self) -> Cache:
        """Return an empty cache."""
        return DynamicCache(config=self.model.config) if self.single_row else KVCache()

    def __call__(
        self, ids_BT: Tensor, positions_BT: Tensor, mask_BL: Tensor | None, cache: Cache, keep: int = 1
    ) -> Tensor:
        """Run the tokens through the model, adding them to ``cache``.

        Args:
            ids_BT: new tokens.
            positions_BT: the place of each in its own row.
            mask_BL: False where a column is padding; None where none is.
            cache: keys and values of earlier tokens; changed in place.
            keep: logits are computed for this many last columns (0: for all).

        Returns:
            Logits [B, keep, V].

        """
        optional: dict[str, Any] = {
            "past_key_values": cache,
            "cache_params": cache,  # the same, as recurrent models call it
            "position_ids": positions_BT,
            "logits_to_keep": keep,
        }
        output = self.model(
            input_ids=ids_BT,
            attention_mask=mask_BL,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._parameters},
        )
        logits: Tensor = output.logits
        return logits[:, -keep:]


def left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token rows of unequal length as [B, T], aligned at the end, and the mask of real ones."""
    length = max(map(len, rows))
    ids_BT = torch.tensor([[0] * (length - len(row)) + row for row in rows], device=device)
    sizes_B1 = torch.tensor([[len(row)] for row in rows], device=device)
    mask_BT = torch.arange(length, device=device) >= length - sizes_B1
    return ids_BT, mask_BT


def common_prefix(rows: list[list[int]]) -> int:
    """Return how many first tokens all rows share, leaving each at least one of its own."""
    first, last = min(rows), max(rows)
    most = min(map(len, rows)) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)
