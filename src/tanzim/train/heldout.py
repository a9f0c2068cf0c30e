"""The loss of a held-out split, as the training measures it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tanzim.train.batches import Layout, alike, collate, pack
from tanzim.train.objectives.base import Objective, evaluating, inner_model
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.objectives.seq2seq import Seq2Seq
from tanzim.train.tokens import Document


@torch.no_grad()
def heldout_loss(model: nn.Module, tokens: Sequence[Document], tokens_per_pass: int) -> tuple[float, int]:
    """Return the cross-entropy (nats) summed over the trained tokens of ``tokens``, and their number.

    Args:
        model: a causal LM or an encoder-decoder, or a PEFT model around one.
        tokens: the split.
        tokens_per_pass: tokens per forward pass.

    """
    if not len(tokens):
        return 0.0, 0
    both_halves = inner_model(model).config.is_encoder_decoder
    objective: Objective = Seq2Seq(model) if both_halves else LanguageModel(model)
    objective.choose(tokens)
    lengths = np.array([len(document.ids) for document in tokens])
    total = 0.0
    with evaluating(model):
        for part in _passes(lengths, objective.layout, tokens_per_pass):
            total += objective.loss_sum(collate([tokens[index] for index in part])).item()
    return total, sum(int(np.count_nonzero(document.loss_weights)) for document in tokens)


def _passes(lengths: npt.NDArray[np.int64], layout: Layout, capacity: int) -> list[list[int]]:
    if layout == "padded":
        return alike(lengths, capacity)
    return pack(lengths, range(len(lengths)), capacity if layout == "packed" else 1)
