"""The parts of a decoder layer by what they are for: attention matrices, feed-forward matrices, norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.full import decoder_layers
from tanzim.adapters.heads import new_modules
from tanzim.adapters.lora import ALL_LINEAR, targets

ATTENTION = ("attn", "attention")


@dataclass(frozen=True, slots=True)
class Block:
    """The parts of one decoder layer, by their path in the model, in the order they stand in.

    Args:
        attention: what holds the attention's matrices.
        feed_forward: what holds all other matrices (linear layers; experts kept as one).
        norms: normalisations.

    """

    attention: dict[str, nn.Module]
    feed_forward: dict[str, nn.Module]
    norms: dict[str, nn.Module]


def blocks(model: Any) -> list[Block]:  # noqa: ANN401 - any transformers model
    """Return the parts of every decoder layer of ``model``, first to last.

    Raises:
        ModelError: the model has no list of layers.

    """
    return [_block(path, layer) for path, layer in decoder_layers(model).items()]


def linear_layers(model: Any, wanted: str | list[str]) -> dict[str, Any]:  # noqa: ANN401
    """Return the linear layers that ``train.method.target_modules`` names, by path, as peft chooses them.

    The output projection and a new head are never among them.

    Raises:
        ModelError: a named layer does not exist.

    """
    names = targets(model, wanted)
    head, new = model.get_output_embeddings(), new_modules(model)
    return {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head
        if not any(path == name or path.startswith(f"{name}.") for name in new)
        if names == ALL_LINEAR or any(path == name or path.endswith(f".{name}") for name in names)
    }


def output_size(layer: Any) -> int:  # noqa: ANN401 - a linear layer or a Conv1D
    """Return how many outputs a linear layer has."""
    return int(layer.nf if isinstance(layer, Conv1D) else layer.out_features)


def _block(path: str, layer: nn.Module) -> Block:
    block = Block({}, {}, {})
    for name, module in layer.named_modules(prefix=path):
        if isinstance(module, nn.Embedding):  # T5 keeps its relative positions inside a layer
            continue
        sizes = {value.ndim for value in module.parameters(recurse=False)}
        if sizes and max(sizes) >= 2:
            inside = name.removeprefix(path).lower()
            attends = any(word in inside for word in ATTENTION)
            (block.attention if attends else block.feed_forward)[name] = module
        elif sizes and "norm" in type(module).__name__.lower():
            block.norms[name] = module
    return block
