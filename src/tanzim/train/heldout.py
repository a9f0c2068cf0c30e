"""The loss of a held-out split, as the training measures it."""

from __future__ import annotations

import torch
from torch import nn

from tanzim.train.batches import Layout, alike, collate, pack
from tanzim.train.objectives.base import Objective, evaluating, inner_model
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.objectives.seq2seq import Seq2Seq
from tanzim.train.tokens import TokenStore


@torch.no_grad()
def heldout_loss(model: nn.Module, tokens: TokenStore, tokens_per_pass: int) -> tuple[float, int]:
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
    total = 0.0
    with evaluating(model):
        for part in _passes(tokens, objective.layout, tokens_per_pass):
            total += objective.loss_sum(collate([tokens[index] for index in part])).item()
    return total, int(tokens.trained.sum())


def _passes(tokens: TokenStore, layout: Layout, capacity: int) -> list[list[int]]:
    if layout == "padded":
        return alike(tokens.lengths, capacity)
    return pack(tokens.lengths, range(len(tokens)), capacity if layout == "packed" else 1)
