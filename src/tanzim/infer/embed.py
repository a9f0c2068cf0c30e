"""Texts as vectors: the mean of what the model's last layer says of each token, made of length one.

Legend: B texts, T tokens of the longest, E size of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from tanzim.infer.engine import Engine

MOST = 4096  # tokens of one pass, padding included; a longer text goes alone


def in_batches(rows: Rows[list[int]]) -> Iterator[list[int]]:
    """Yield the numbers of the texts that are computed together, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index])):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > MOST:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _filled(longest: int, context: int | None) -> int:
    """Return the length that texts are padded to: oneDNN makes a kernel for each, of up to a megabyte."""
    step = 16 if longest <= 128 else 64
    return max(longest, min(-(-longest // step) * step, context or longest + step))


@torch.inference_mode()
def embed(engine: Engine, rows: Rows[list[int]], adapter: str | None) -> Tensor:
    """Return the embeddings [B, E] of texts, in float32 on the CPU.

    Args:
        engine: whose model computes.
        rows: the texts' tokens, none empty; all of them go through the model together.
        adapter: name of the adapter; None is the base model. Vectors that it puts before a text do not
            count as tokens of it.

    Raises:
        ModelError: there is no such adapter, or no room for it.

    """
    longest = _filled(max(map(len, rows)), engine.context_length)
    with engine.lend(adapter) as lent:
        module: Any = lent
        device = next(module.parameters()).device
        # Padded on the right, where no token looks.
        ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        sizes_B1 = torch.tensor([[len(row)] for row in rows], device=device)
        seen_BT = (torch.arange(longest, device=device) < sizes_B1).long()
        if isinstance(module, PreTrainedModel):  # without the layer that makes logits
            hidden_BTE = module.base_model(input_ids=ids_BT, attention_mask=seen_BT).last_hidden_state
        else:
            output = module(input_ids=ids_BT, attention_mask=seen_BT, output_hidden_states=True)
            hidden_BTE = output.hidden_states[-1][:, -longest:]
        summed_BE = (hidden_BTE.float() * seen_BT[..., None]).sum(1)
        return functional.normalize(summed_BE / sizes_B1, dim=-1).cpu()
