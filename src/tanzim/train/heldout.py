"""The loss of a held-out split, as the training measures it."""

from __future__ import annotations

import torch
from torch import nn

from tanzim.train.batches import collate, pack
from tanzim.train.objectives.base import evaluating
from tanzim.train.objectives.language_model import LanguageModel
from tanzim.train.tokens import TokenStore


@torch.no_grad()
def heldout_loss(model: nn.Module, tokens: TokenStore, tokens_per_pass: int) -> tuple[float, int]:
    """Return the cross-entropy (nats) summed over the trained tokens of ``tokens``, and their number.

    Args:
        model: a causal LM, or a PEFT model around one.
        tokens: the split.
        tokens_per_pass: tokens per forward pass.

    """
    if not len(tokens):
        return 0.0, 0
    objective = LanguageModel(model)
    objective.choose(tokens)
    total = 0.0
    capacity = tokens_per_pass if objective.layout == "packed" else 1
    with evaluating(model):
        for part in pack(tokens.lengths, range(len(tokens)), capacity):
            total += objective.loss_sum(collate([tokens[index] for index in part])).item()
    return total, int(tokens.trained.sum())
