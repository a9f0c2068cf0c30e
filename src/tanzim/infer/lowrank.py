"""What an adapter adds to a linear layer, where that is a product of low rank.

Legend: R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.adalora import SVDLinear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.vera import Linear as VeraLinear
from torch import Tensor, nn

HIGHEST_RANK = 128  # above it the product costs as much as the layer: such an adapter computes alone


@dataclass(frozen=True, slots=True)
class LowRank:
    """A layer's change: y = gain ⊙ (x·Wᵀ + (x·Aᵀ)·B) + bias.

    Args:
        a_RI: A.
        b_RO: B with its factor, transposed.
        gain_O: DoRA's scale of each output (Liu et al., arXiv:2402.09353); None for 1.

    """

    a_RI: Tensor
    b_RO: Tensor
    gain_O: Tensor | None = None


def low_rank(layers: Mapping[str, nn.Module], adapter: str) -> dict[str, LowRank] | None:
    """Return the change of each layer, or None where one of them is something else.

    Args:
        layers: peft's layers by their path in the model.
        adapter: the name they know the adapter by.

    """
    found: dict[str, LowRank] = {}
    for path, layer in layers.items():
        # Experts and the head see a part of the tokens each, and nobody could tell whose.
        apart = "expert" in path or path.endswith("lm_head")
        change = None if apart else _change(layer, adapter)
        if change is None or change.a_RI.shape[0] > HIGHEST_RANK:
            return None
        found[path] = change
    return found or None


@torch.no_grad()
def _change(layer: Any, adapter: str) -> LowRank | None:  # noqa: ANN401 - untyped package
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else None
    if type(base) is not nn.Linear or layer.merged:
        return None
    if isinstance(layer, SVDLinear):
        a_RI = layer.lora_A[adapter] * layer.lora_E[adapter]
        scale = layer.scaling[adapter] / (layer.ranknum[adapter] + 1e-5)
        return LowRank(a_RI, (layer.lora_B[adapter] * scale).T.contiguous())
    if isinstance(layer, VeraLinear):
        return _vera(layer, base, adapter)
    if isinstance(layer, LoraLinear):
        return _lora(layer, base, adapter)
    return None


def _vera(layer: Any, base: nn.Linear, adapter: str) -> LowRank:  # noqa: ANN401 - untyped package
    down_R, up_O = layer.vera_lambda_d[adapter], layer.vera_lambda_b[adapter]
    a_RI = layer.vera_A[adapter][:, : base.in_features] * down_R[:, None]
    return LowRank(a_RI, (layer.vera_B[adapter][: base.out_features] * up_O[:, None]).T.contiguous())


def _lora(layer: Any, base: nn.Linear, adapter: str) -> LowRank | None:  # noqa: ANN401 - untyped package
    magnitude: Any = layer.lora_magnitude_vector
    variant = layer.lora_variant.get(adapter)
    if layer.lora_bias.get(adapter, False) or (variant is not None and adapter not in magnitude):
        return None
    a_RI, b_OR = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    scale = layer.scaling[adapter]
    gain_O = None
    if adapter in magnitude:
        weight_OI = base.weight.to(a_RI.dtype) + scale * (b_OR @ a_RI)
        gain_O = magnitude[adapter].weight / torch.linalg.norm(weight_OI, dim=1)
    return LowRank(a_RI.detach(), (b_OR * scale).T.contiguous(), gain_O)
