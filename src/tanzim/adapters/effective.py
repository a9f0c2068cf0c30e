"""The weight that an adapted layer computes with: one formula per kind of peft's layers."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.adalora import SVDLinear
from peft.tuners.ia3 import Linear as Ia3Linear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.tuners.vera import Linear as VeraLinear
from torch import Tensor, nn

Weights = tuple[Tensor, Tensor | None]


@torch.no_grad()
def effective_weights(layer: Any, adapter: str) -> Weights | None:  # noqa: ANN401 - untyped package
    """Return the weight and bias of the linear layer that computes as ``layer`` does with ``adapter``.

    LoRA, AdaLoRA and VeRA add a product to W; DoRA also scales each output's weights to the norm m; (IA)³
    multiplies the rows of W and the bias, or the columns of W.

    Args:
        layer: a module of peft.
        adapter: one of its adapters.

    Returns:
        Weight and bias in the layout of the base layer; None where this is no such layer, or one in
        4 bits, which the product cannot be added to.

    """
    base: Any = layer.get_base_layer()
    if isinstance(layer, Ia3Linear):
        return _multiplied(layer, base, adapter)
    if not isinstance(layer, LoraLinear | SVDLinear | VeraLinear):
        return None
    weight: Tensor = base.weight + layer.get_delta_weight(adapter).to(base.weight.dtype)
    if isinstance(layer, LoraLinear):
        if layer.lora_bias.get(adapter, False):
            return None
        if adapter in layer.lora_magnitude_vector:
            # The norm is of the weights of each output: rows, or columns where the matrix is transposed.
            along = 0 if layer.fan_in_fan_out else 1
            magnitude: Any = layer.lora_magnitude_vector[adapter].weight
            weight = weight * (
                magnitude.unsqueeze(along) / torch.linalg.norm(weight, dim=along, keepdim=True)
            )
    return weight, base.bias


def merged_linear(layer: BaseTunerLayer, adapter: str) -> nn.Linear | None:
    """Return the plain layer that computes as ``layer`` does with ``adapter``; None if that would round.

    In half precision a small change would be lost in the sum; GPT-2's layers are no plain ones.
    """
    base: Any = layer.get_base_layer()
    if type(base) is not nn.Linear or base.weight.dtype != torch.float32:
        return None
    weights = effective_weights(layer, adapter)
    if weights is None:
        return None
    merged = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    merged.weight = nn.Parameter(weights[0], requires_grad=False)
    if weights[1] is not None:
        merged.bias = nn.Parameter(weights[1].detach(), requires_grad=False)
    return merged


def _multiplied(layer: Any, base: Any, adapter: str) -> Weights:  # noqa: ANN401 - untyped package
    factors = layer.ia3_l[adapter]
    weight: Tensor = base.weight * (factors.T if layer.fan_in_fan_out else factors)
    if base.bias is None or layer.is_feedforward:
        return weight, base.bias
    return weight, base.bias * factors.flatten()
