"""Which weights the one loaded model computes with: the base's, or those of one of its adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from tanzim.adapters.linear import effective
from tanzim.core.errors import ModelError

Place = tuple[nn.Module, str, BaseTunerLayer]


class Weights:
    """Lends the model out as its base or as one adapter, and leaves it as it was.

    For the base, each adapted layer's place in the module tree is taken by the untouched base layer.
    For a LoRA adapter in float32, it is taken by a linear layer with the merged weight W + s·B·A
    (Hu et al., arXiv:2106.09685): one product instead of three, at the price of a second copy of
    those weights, kept for the adapter last used. In half precision merging would round, so PEFT's
    own layers compute.

    Args:
        model: a transformers model, or one wrapped by PEFT.

    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._model = model
        self._merged: dict[int, nn.Linear] = {}
        self._merged_of: tuple[str, int] | None = None

    @property
    def bare(self) -> PreTrainedModel:
        """The model inside PEFT's wrapper."""
        model = self._model
        return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        return tuple(self._model.peft_config) if isinstance(self._model, PeftModel) else ()

    def wrap(self, model: PeftModel) -> None:
        """Take the model that loading an adapter made of the former one."""
        self._model = model

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Make the model compute with ``adapter`` (None: as the base) inside the block.

        Raises:
            ModelError: no such adapter is loaded.

        """
        if adapter is not None and adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ModelError(f"there is no adapter '{adapter}' (loaded: {known})")
        places = self._places()
        if adapter is not None and not all(_mergeable(layer, adapter) for _, _, layer in places):
            with _selected([layer for _, _, layer in places], adapter):
                yield
            return
        if adapter is not None:
            self._merge(adapter, places)
        for parent, name, layer in places:
            base = layer.get_base_layer()
            lent = base if adapter is None else self._merged.get(id(layer), base)
            parent._modules[name] = lent
        try:
            yield
        finally:
            for parent, name, layer in places:
                parent._modules[name] = cast(nn.Module, layer)

    def _places(self) -> list[Place]:
        """Find the adapted layers; looked up each time, for adapters and fused layers come and go."""
        return [
            (parent, name, cast(BaseTunerLayer, child))
            for parent in self.bare.modules()
            if not isinstance(parent, BaseTunerLayer)
            for name, child in parent._modules.items()
            if isinstance(child, BaseTunerLayer)
        ]

    @torch.no_grad()
    def _merge(self, adapter: str, places: list[Place]) -> None:
        """Form the merged layers of ``adapter``, unless they are there and its weights unchanged."""
        layers = [cast(LoraLinear, layer) for _, _, layer in places]
        layers = [layer for layer in layers if adapter in layer.lora_A]
        pairs = [_factors(layer, adapter) for layer in layers]
        state = (adapter, sum(a_RI._version + b_OR._version for a_RI, b_OR in pairs))
        if self._merged_of == state:
            return
        self._merged.clear()
        for layer, (a_RI, b_OR) in zip(layers, pairs, strict=True):
            base = cast(nn.Linear, layer.get_base_layer())
            merged = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            weight_OI = effective(base.weight, a_RI, b_OR, layer.scaling[adapter])
            merged.weight = nn.Parameter(weight_OI, requires_grad=False)
            merged.bias = base.bias
            self._merged[id(layer)] = merged
        self._merged_of = state


def _factors(layer: LoraLinear, adapter: str) -> tuple[Tensor, Tensor]:
    """Return A [R, I] and B [O, R]."""
    return cast(Tensor, layer.lora_A[adapter].weight), cast(Tensor, layer.lora_B[adapter].weight)


def _mergeable(layer: BaseTunerLayer, adapter: str) -> bool:
    """Tell whether merging is exact to float32 rounding: plain LoRA on a plain linear layer."""
    base = layer.get_base_layer()
    if not isinstance(layer, LoraLinear) or type(base) is not nn.Linear:
        return False
    if layer.merged or base.weight.dtype != torch.float32:
        return False
    return adapter not in layer.lora_A or not (adapter in layer.lora_variant or layer.lora_bias[adapter])


@contextmanager
def _selected(layers: list[BaseTunerLayer], adapter: str) -> Iterator[None]:
    """Let PEFT's layers compute with ``adapter``.

    Set directly: PEFT's ``set_adapter`` would also change which parameters are trained.
    """
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._active_adapter, layer._disable_adapters = [adapter], False
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled
