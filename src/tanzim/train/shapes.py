"""The sizes of a model from its ``config.json`` alone: nothing is loaded, no memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tanzim.models.load import Kind, blank_model


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sizes that memory and time follow from.

    Args:
        parameters: weights of the model, tied ones once.
        linear: weights in its linear layers, without the vocabulary's.
        layers: how many layers (of an encoder-decoder: in each half).
        hidden: width between layers.
        vocabulary: how many tokens there are.
        positions: the most tokens a document may have; None where there is no limit.

    """

    parameters: int
    linear: int
    layers: int
    hidden: int
    vocabulary: int
    positions: int | None


def shapes(path: Path, *, kind: Kind = "causal", labels: int = 0) -> Shapes:
    """Read the sizes of the model in the folder ``path``.

    Args:
        path: folder with ``config.json``.
        kind: what the model is to do.
        labels: classes of a classification head.

    """
    model: Any = blank_model(path, dtype=torch.float32, device=torch.device("meta"), kind=kind, labels=labels)
    head = model.get_output_embeddings()
    linear = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
    text = model.config.get_text_config()
    return Shapes(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=sum(weight.numel() for weight in linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        positions=getattr(text, "max_position_embeddings", None),
    )
