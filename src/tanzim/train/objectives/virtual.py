"""Learnt vectors before every document of a packed row (prompt and p-tuning), or as keys and values (prefix).

Shapes: T tokens of the row, N documents, P learnt vectors of each, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.adapters.soft_prompts import learns_keys, virtual_tokens
from tanzim.train.batches import Batch

Inputs = dict[str, Any]


class Start:
    """What stands before every document.

    Args:
        model: a PEFT model of prefix, prompt or p-tuning.

    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a PEFT model
        self._model = model
        self.keys = learns_keys(model)
        # The model's own forward puts them before the text; prefixes are in the cache and have no outputs.
        self.outputs = 0 if self.keys else virtual_tokens(model)

    def inputs(self, batch: Batch, make: Callable[[Batch], Inputs]) -> tuple[Inputs, Tensor]:
        """Return what the base model takes for ``batch``, and which rows [T] of its output are the text's.

        Args:
            batch: documents; one alone under prefix tuning.
            make: the inputs of a batch without learnt vectors.

        """
        if self.keys:
            rows_T = torch.arange(batch.tokens, device=batch.targets_T.device)
            return make(batch) | {"past_key_values": self._model.get_prompt(1)}, rows_T
        longer, rows_T, learnt_NP = preceded(batch, self.outputs)
        inputs = make(longer)
        embedded_1TD: Tensor = self._model.get_base_model().get_input_embeddings()(inputs.pop("input_ids"))
        prompts_PD = self._model.get_prompt(1)[0].to(embedded_1TD.dtype)
        everywhere = prompts_PD.repeat(len(learnt_NP), 1)
        inputs["inputs_embeds"] = embedded_1TD.index_copy(1, learnt_NP.flatten(), everywhere[None])
        return inputs, rows_T


def start_of(model: nn.Module) -> Start | None:
    """Return what stands before the documents of ``model``; None where nothing does."""
    return Start(model) if virtual_tokens(model) else None


def preceded(batch: Batch, count: int) -> tuple[Batch, Tensor, Tensor]:
    """Make room for ``count`` tokens before every document.

    Returns:
        The longer batch (token 0 in the new places), the rows [T] that the text now has, and the rows
        [N, P] of the new places..

    """
    borders = batch.cu_seq_lens.long()
    lengths_N = borders.diff()
    number_T = torch.repeat_interleave(torch.arange(len(lengths_N), device=borders.device), lengths_N)
    places = torch.arange(batch.tokens, device=borders.device)
    rows_T = places + count * (number_T + 1)
    new_P = torch.arange(count, device=borders.device)
    learnt_NP = (borders[:-1] + count * torch.arange(len(lengths_N), device=borders.device))[:, None] + new_P
    total = batch.tokens + count * len(lengths_N)
    ids_1T = batch.input_ids_1T.new_zeros(1, total)
    ids_1T[0, rows_T] = batch.input_ids_1T[0]
    positions_1T = batch.position_ids_1T.new_zeros(1, total)
    positions_1T[0, rows_T] = batch.position_ids_1T[0] + count
    positions_1T[0, learnt_NP.flatten()] = new_P.repeat(len(lengths_N))
    grown = count * torch.arange(len(borders), device=borders.device)
    longer = replace(
        batch,
        input_ids_1T=ids_1T,
        position_ids_1T=positions_1T,
        cu_seq_lens=(borders + grown).to(batch.cu_seq_lens.dtype),
        max_length=batch.max_length + count,
        targets_T=_spread(batch.targets_T, rows_T, total),
        weights_T=_spread(batch.weights_T, rows_T, total),
    )
    return longer, rows_T, learnt_NP


def _spread(values_T: Tensor, rows_T: Tensor, total: int) -> Tensor:
    spread = values_T.new_zeros(total)
    spread[rows_T] = values_T
    return spread
