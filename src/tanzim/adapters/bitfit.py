"""BitFit: only the biases learn, b ← b − η·∇L; every matrix stays (Zaken et al. 2021, arXiv:2106.10199).

A model without biases (the Llama family) has the scales of its norms trained instead. Some hundred
thousand numbers at most, and no cost in use: prefer it for small data, for many adapters of one base,
and as the baseline that anything larger must beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tanzim.adapters.config import BitFitConfig
from tanzim.adapters.heads import head_parameters
from tanzim.adapters.method import Method
from tanzim.adapters.own import Change, OwnMethod, fitting, freeze, parameter_change
from tanzim.core.errors import ModelError
from tanzim.core.records import Json


def attach(model: Any, config: BitFitConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Let the biases of ``model`` be trained, in float32, and nothing else.

    Args:
        model: a transformers model.
        config: the method's section.
        seed: unused: nothing is drawn.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: there are neither biases nor norms.

    """
    freeze(model)
    for parameter in vectors(model).values():
        # Half precision would round small updates away.
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
        parameter.requires_grad_(True)
    return OwnMethod(model, config, base_hash=base_hash, base_name=base_name)


def vectors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the biases of ``model`` by name; the scales of its norms where it has none.

    Raises:
        ModelError: there are neither.

    """
    heads = head_parameters(model)
    named = {name: value for name, value in model.named_parameters() if name not in heads}
    biases = {name: value for name, value in named.items() if name.endswith("bias") and value.ndim == 1}
    scales = {
        f"{path}.weight": named[f"{path}.weight"]
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and f"{path}.weight" in named
    }
    if not (biases or scales):
        raise ModelError(
            "the model has neither biases nor norms to train",
            where="train.method.type",
            fix="use another method, such as lora",
        )
    return biases or scales


def changes(model: nn.Module, settings: Json, tensors: Mapping[str, Tensor]) -> list[Change]:
    """Return the places of ``model`` that a trained BitFit adapter takes, with its values.

    Raises:
        ModelError: a tensor does not fit.

    """
    places = vectors(model)
    fitting({name: tuple(value.shape) for name, value in places.items()}, tensors)
    return [parameter_change(model, name, tensors[name]) for name in places]
