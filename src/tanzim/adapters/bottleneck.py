"""Bottleneck adapters: z + U·f(D·z) after attention and after the feed-forward part of every layer.

Houlsby et al. 2019, arXiv:1902.00751: D narrows to ``size``, f is a non-linearity, U widens again, both
with biases; the sum stands before the layer's own residual. U begins at zero, so that the start equals
the base. Prefer them where a change that is no linear map of the activations is needed; unlike LoRA
they cannot be merged, and cost a little time in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.blocks import blocks, output_size
from tanzim.adapters.config import BottleneckConfig
from tanzim.adapters.method import Method
from tanzim.adapters.own import Change, OwnMethod, fitting, freeze, module_change
from tanzim.core.errors import ModelError
from tanzim.core.records import Json
from tanzim.core.seeds import derive

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}


class Bottleneck(nn.Module):
    """A linear layer with a bottleneck adapter after it.

    Args:
        base_layer: the frozen layer.
        size: width of the bottleneck.
        activation: a name of `ACTIVATIONS`.

    """

    def __init__(self, base_layer: nn.Module, size: int, activation: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        width, weight = output_size(base_layer), cast(Tensor, base_layer.weight)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.down = nn.Linear(width, size, device=weight.device, dtype=dtype)
        self.up = nn.Linear(size, width, device=weight.device, dtype=dtype)
        self._activate = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """Return z + U·f(D·z) of the layer's output z, [..., O]."""
        z: Tensor = self.base_layer(x)
        change: Tensor = self.up(self._activate(self.down(z.to(self.down.weight.dtype))))
        return z + change.to(z.dtype)


def attach(model: Any, config: BottleneckConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Put bottlenecks into ``model`` and freeze everything else.

    Args:
        model: a transformers model; the layers before the bottlenecks are wrapped in place.
        config: width and non-linearity.
        seed: the run's seed; D is drawn from it.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a layer's attention or feed-forward output was not found.

    """
    freeze(model)
    for path, layer in outputs(model).items():
        made = Bottleneck(layer, config.size, config.activation)
        generator = torch.Generator().manual_seed(derive(seed, "bottleneck", path))
        bound = 1 / math.sqrt(made.down.in_features)
        drawn_SD = torch.empty(made.down.weight.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            made.down.weight.copy_(drawn_SD)
            for zero in (made.down.bias, made.up.weight, made.up.bias):
                zero.zero_()
        module_change(model, path, made).swap()
    return OwnMethod(model, config, base_hash=base_hash, base_name=base_name)


def outputs(model: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - any transformers model
    """Return the last linear layer of every attention and feed-forward part, by path.

    Raises:
        ModelError: one was not found.

    """
    width = model.config.get_text_config().hidden_size
    found: dict[str, nn.Module] = {}
    for block in blocks(model):
        for kind, parts in (("attention", block.attention), ("feed-forward", block.feed_forward)):
            last = [
                (path, layer)
                for path, layer in parts.items()
                if isinstance(layer, nn.Linear | Conv1D) and output_size(layer) == width
            ]
            experts = [path for path, layer in parts.items() if not isinstance(layer, nn.Linear | Conv1D)]
            if not last or experts:
                raise ModelError(
                    f"the output of a layer's {kind} part was not found"
                    + (f" ({experts[0]} is no linear layer)" if experts else ""),
                    where="train.method.type",
                    fix="use another method, such as lora",
                )
            found[last[-1][0]] = last[-1][1]
    return found


def changes(model: Any, settings: Json, tensors: Mapping[str, Tensor]) -> list[Change]:  # noqa: ANN401
    """Return the places of ``model`` that a trained adapter takes: wrapped layers.

    Raises:
        ModelError: a tensor does not fit.

    """
    made = {
        path: Bottleneck(layer, settings["size"], settings["activation"])
        for path, layer in outputs(model).items()
    }
    places = {
        f"{path}.{part}.{name}": value
        for path, module in made.items()
        for part, own in (("down", module.down), ("up", module.up))
        for name, value in own.named_parameters()
    }
    fitting({name: tuple(value.shape) for name, value in places.items()}, tensors)
    for name, value in places.items():
        value.data = tensors[name].to(value)
        value.requires_grad_(False)
    return [module_change(model, path, module) for path, module in made.items()]
