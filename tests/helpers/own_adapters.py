"""Adapters of our own kinds with random values, and the same changes made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from tanzim.adapters.attach import attach
from tanzim.adapters.config import MethodConfig
from tanzim.adapters.method import Method

KINDS: dict[str, dict[str, Any]] = {
    "bitfit": {"type": "bitfit"},
    "bottleneck": {"type": "bottleneck", "size": 6, "activation": "gelu"},
    "spiel": {"type": "spiel", "density": 0.1},
}


def random_adapter(model: nn.Module, kind: str, folder: Path, base_hash: str, **more: Any) -> Method:
    """Put an adapter with random values on ``model``, and save it."""
    config: Any = TypeAdapter(MethodConfig).validate_python(KINDS[kind] | more)
    method = attach(model, config, seed=3, base_hash=base_hash, base_name="tiny")
    generator = torch.Generator().manual_seed(len(kind))
    with torch.no_grad():
        for value in method.parameters.values():
            value.add_(torch.randn(value.shape, generator=generator, dtype=value.dtype), alpha=0.3)
    method.save(folder)
    return method


@torch.no_grad()
def changed_by_hand(model: nn.Module, kind: str, folder: Path) -> nn.Module:
    """Change a plain ``model`` as the adapter in ``folder`` should, by its tensors alone."""
    tensors = load_file(folder / "adapter_model.safetensors")
    if kind == "bitfit":
        for name, value in tensors.items():
            model.get_parameter(name).copy_(value)
    elif kind == "spiel":
        for name, places in tensors.items():
            if name.endswith(".places"):
                weight = model.get_parameter(name.replace(".places", ".weight"))
                flat = weight.flatten().clone()
                for place, delta in zip(places, tensors[name.replace(".places", ".delta")], strict=True):
                    flat[int(place)] += delta
                weight.copy_(flat.view(weight.shape))
    else:
        for path in {name.rsplit(".", 2)[0] for name in tensors}:
            down, up = (
                [tensors[f"{path}.{part}.{v}"] for v in ("weight", "bias")] for part in ("down", "up")
            )

            def widen(_: Any, __: Any, z: torch.Tensor, down: Any = down, up: Any = up) -> torch.Tensor:
                change = functional.linear(functional.gelu(functional.linear(z.float(), *down)), *up)
                return z + change.to(z.dtype)

            model.get_submodule(path).register_forward_hook(widen)
    return model
