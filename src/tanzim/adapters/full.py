"""Full fine-tuning, of all layers or of chosen ones; the rest stays bit for bit as it was.

The plain rule θ ← θ − η·∇L(θ) over every weight (or a chosen part of them). Prefer it where the task
is far from what the base can do and memory suffices; the last layers alone where the task is near.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tanzim.adapters.config import FullConfig
from tanzim.adapters.heads import head_parameters
from tanzim.adapters.method import Method
from tanzim.core.errors import ModelError


def attach(model: Any, config: FullConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Let the chosen weights of ``model`` be trained.

    Args:
        model: a transformers model.
        config: which layers.
        seed: unused: nothing is drawn.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a name to freeze matches nothing, or nothing is left to train.

    """
    names = [name for name, _ in model.named_parameters()]
    for part in config.freeze:
        if not any(part in name for name in names):
            raise ModelError(
                f"no parameter's name contains '{part}'",
                where="train.method.freeze",
                fix=f"names look like {names[0]} and {names[-1]}",
            )
    kept = set(names) if config.last_layers is None else _last(model, config.last_layers)
    kept |= head_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept and not any(part in name for part in config.freeze))
    method = Method(model, base_hash=base_hash, base_name=base_name)
    if not method.parameters:
        raise ModelError("every weight is frozen: nothing is left to train", where="train.method.freeze")
    return method


def decoder_layers(model: Any) -> dict[str, Any]:  # noqa: ANN401 - any transformers model
    """Return the layers of ``model``, first to last, by their path; an encoder's before its decoder's.

    Raises:
        ModelError: the model has no list of layers.

    """
    config = model.config.get_text_config()
    keys = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")
    wanted = {getattr(config, key, None) for key in keys}
    found: dict[str, nn.ModuleList] = {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) not in wanted:
            continue
        nested = any(path.startswith(f"{other}.") for other in found)
        if not nested and (not found or model.config.is_encoder_decoder):
            found[path] = module
    if not found:
        raise ModelError(
            "the model's layers could not be told apart",
            where="train.method.type",
            fix="use full, without last_layers",
        )
    return {f"{path}.{index}": layer for path, part in found.items() for index, layer in enumerate(part)}


def _last(model: Any, count: int) -> set[str]:  # noqa: ANN401
    """Name the parameters of the last ``count`` layers and of all that comes after them."""
    layers = decoder_layers(model)
    if count > len(layers):
        raise ModelError(
            f"the model has {len(layers)} layers, not {count}",
            where="train.method.last_layers",
            fix=f"use at most {len(layers)}",
        )
    paths = list(layers)
    last = tuple(f"{path}." for path in paths[-count:])
    inside = f"{paths[-1].rpartition('.')[0]}."
    beside = inside.removesuffix(f"{inside.split('.')[-2]}.")
    embeddings = {
        id(value) for m in model.modules() if isinstance(m, nn.Embedding) for value in m.parameters()
    }
    head = model.get_output_embeddings()
    heads = set() if head is None else {id(value) for value in head.parameters()}
    named = dict(model.named_parameters())
    after = {
        name
        for name, value in named.items()
        # The final norm stands beside the list of layers, and so do embeddings, which come before them;
        # a tied head is one.
        if (name.startswith(beside) and not name.startswith(inside)) or id(value) in heads
        if id(value) not in embeddings
    }
    return {name for name in named if name.startswith(last)} | after
