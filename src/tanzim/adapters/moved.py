"""How far training moved each layer: its magnitude and its direction, apart.

A layer's weight is taken as its outputs' weight vectors. For each, m = ‖W‖ is its magnitude and W / m its
direction. Reported are the means over the outputs of |m − m₀| / m₀ and of 1 − cos(W, W₀). It is the
weight decomposition analysis of DoRA (Liu et al. 2024, arXiv:2402.09353, section 3.2): over the layers,
full tuning and DoRA move the two in opposite measure, LoRA both together, which the correlation shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from tanzim.adapters.effective import effective_weights
from tanzim.core.records import Json

FEWEST = 3  # layers, for a correlation
BaseWeight = Callable[[str], Tensor | None]


@torch.no_grad()
def moved_layers(model: nn.Module, base_weight: BaseWeight = lambda name: None) -> Json:
    """Return how far each linear layer of ``model`` is from its base.

    Args:
        model: with an adapter of peft's, or with changed weights.
        base_weight: returns the base's value of a weight by its name, None where it has none; needed for
            changed weights alone.

    Returns:
        ``layers``: for each its name, ``magnitude`` (mean relative change) and ``direction`` (mean of
        1 − cosine, 0 to 2); ``correlation`` of the two over the layers, None where there is none.

    """
    layers = []
    for name, before, after, along in _pairs(model, base_weight):
        magnitude, direction = moved(before, after, along)
        layers.append({"layer": name, "magnitude": magnitude, "direction": direction})
    return {"layers": layers, "correlation": _correlation(layers)}


def moved(before: Tensor, after: Tensor, along: int = 1) -> tuple[float, float]:
    """Return the mean relative change of magnitude, and the mean of 1 − cosine, of a weight's outputs.

    Args:
        before: the base's weight, a matrix.
        after: the trained one.
        along: the dimension of a weight vector's entries (1; 0 where the matrix is transposed).

    """
    before, after = before.double(), after.double()
    lengths = [torch.linalg.vector_norm(x, dim=along) for x in (before, after)]
    alive = (lengths[0] > 0) & (lengths[1] > 0)
    if not bool(alive.any()):
        return 0.0, 0.0
    start, end = (length[alive] for length in lengths)
    # 1 − cos = ‖a − b‖² / 2 for unit vectors: exact where the angle is small.
    units = [
        x / length.unsqueeze(along).clamp_min(1e-300)
        for x, length in zip((before, after), lengths, strict=True)
    ]
    apart = (units[0] - units[1]).square().sum(along)[alive] / 2
    return float(((end - start).abs() / start).mean()), float(apart.mean())


def _pairs(model: Any, base_weight: BaseWeight) -> Iterator[tuple[str, Tensor, Tensor, int]]:  # noqa: ANN401
    """Yield the name, the base's weight, the trained weight and `along` of every layer that can tell."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inside: set[int] = set()
    for name, module in inner.named_modules():
        layer: Any = module
        if isinstance(module, BaseTunerLayer):
            inside |= {id(part) for part in layer.modules()}
            pair = _adapted(layer)
            if pair is not None:
                yield name, *pair, 0 if getattr(layer, "fan_in_fan_out", False) else 1
        elif id(module) not in inside and isinstance(module, nn.Linear) and module.weight.requires_grad:
            before = base_weight(f"{name}.weight")
            if before is not None and before.shape == module.weight.shape:
                yield name, before.to(module.weight.device), module.weight, 1


def _adapted(layer: Any) -> tuple[Tensor, Tensor] | None:  # noqa: ANN401 - untyped package
    base, adapter = layer.get_base_layer(), layer.active_adapters[0]
    if type(base).__name__ == "Linear4bit":
        before = dequantize_module_weight(base)
        return before, before + layer.get_delta_weight(adapter)
    weights = effective_weights(layer, adapter)
    return None if weights is None else (base.weight, weights[0])


def _correlation(layers: list[dict[str, Any]]) -> float | None:
    """Return Pearson's correlation of the two changes over the layers."""
    if len(layers) < FEWEST:
        return None
    table = torch.tensor([[layer["magnitude"], layer["direction"]] for layer in layers], dtype=torch.float64)
    found = float(torch.corrcoef(table.T)[0, 1])
    return found if found == found else None  # noqa: PLR0124 - no spread, no correlation
