"""What an adapter adds to a linear layer, where that is a product of low rank.

Legend: R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

import torch
from peft.tuners.adalora import SVDLinear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.vera import Linear as VeraLinear
from torch import Tensor, nn

from tanzim.adapters.folder import CONFIG, check_base, own_type
from tanzim.adapters.linear import effective
from tanzim.adapters.lora_files import LoraFiles, read_lora
from tanzim.adapters.own import Change, module_change
from tanzim.adapters.store import check_form
from tanzim.core.errors import ModelError
from tanzim.core.files import read_json
from tanzim.models.integers import IntLinear, has_integers, precision

BESIDE = "LORA", "ADALORA", "VERA"  # kinds of peft that can be products of low rank
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


@dataclass(frozen=True, slots=True)
class PlainAdapter:
    """A plain LoRA adapter read from its file alone, which takes a tenth of peft's time.

    Args:
        files: what was read.

    """

    files: LoraFiles

    def low_rank(self) -> dict[str, LowRank] | None:
        """Return the change of each layer, or None where it cannot stand beside others."""
        if any(_apart(path, factors.a_RI) for path, factors in self.files.layers.items()):
            return None
        return {
            path: LowRank(factors.a_RI, (factors.b_OR * factors.scale).T.contiguous())
            for path, factors in self.files.layers.items()
        }

    @torch.no_grad()
    def changes(self, model: nn.Module) -> list[Change]:
        """Return the merged layers that it puts in the places of the base's."""
        made = []
        for path, factors in self.files.layers.items():
            base = cast(nn.Linear, model.get_submodule(path))
            merged = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            factor_RI, factor_OR = (x.to(base.weight.device) for x in (factors.a_RI, factors.b_OR))
            weight_OI = effective(base.weight, factor_RI, factor_OR, factors.scale)
            merged.weight = nn.Parameter(weight_OI, requires_grad=False)
            merged.bias = base.bias
            made.append(module_change(model, path, merged))
        return made


def read_plain(model: nn.Module, folder: Path, *, base_hash: str) -> PlainAdapter | None:
    """Read an adapter that is plain LoRA on plain linear layers of a float32 model; None if it is not.

    Raises:
        ModelError: it belongs to another form of the base, or is no adapter.
        WrongBaseError: it was made for other base weights, or does not say for which.

    """
    check_base(folder, base_hash)
    check_form(model, folder)
    try:
        files = read_lora(folder)
    except ModelError:
        return None  # another kind, or damaged: peft says which
    modules = dict(model.named_modules())
    for path, factors in files.layers.items():
        base = modules.get(path)
        if not _plain(base) or precision(base) != torch.float32:
            return None
        if (factors.b_OR.shape[0], factors.a_RI.shape[1]) != (base.out_features, base.in_features):
            return None
    return PlainAdapter(files)


def check_integers(model: nn.Module, folder: Path) -> None:
    """Refuse an adapter that computes alone where the base is kept as integers: it needs weights to change.

    Raises:
        ModelError: it is of such a kind.

    """
    if has_integers(model):
        own, config = own_type(folder), folder / CONFIG
        kind = own or str(read_json(config).get("peft_type") if config.is_file() else None)
        if own is not None or kind not in BESIDE:
            raise unmixed(kind.lower())


def unmixed(what: str) -> ModelError:
    """Return the refusal of an adapter that cannot stand beside integers."""
    return ModelError(
        f"over a base kept as integers only adapters of low rank are served (LoRA and its kin, up to rank "
        f"{HIGHEST_RANK}); this is {what}",
        fix="serve it without serve.engine.quantization",
    )


def low_rank(layers: Mapping[str, nn.Module], adapter: str) -> dict[str, LowRank] | None:
    """Return the change of each layer, or None where one of them is something else.

    Args:
        layers: peft's layers by their path in the model.
        adapter: the name they know the adapter by.

    """
    found: dict[str, LowRank] = {}
    for path, layer in layers.items():
        change = _change(layer, adapter)
        if change is None or _apart(path, change.a_RI):
            return None
        found[path] = change
    return found or None


def _plain(layer: nn.Module | None) -> TypeGuard[nn.Linear]:
    return type(layer) in (nn.Linear, IntLinear)


def _apart(path: str, a_RI: Tensor) -> bool:
    # Experts and the head see a part of the tokens each, and nobody could tell whose.
    return "expert" in path or path.endswith("lm_head") or a_RI.shape[0] > HIGHEST_RANK


@torch.no_grad()
def _change(layer: Any, adapter: str) -> LowRank | None:  # noqa: ANN401 - untyped package
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else None
    if not _plain(base) or layer.merged:
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
