"""Which weights the one loaded model computes with: the base's, or those of one of its adapters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from tanzim.adapters.lifted import NAME, LiftedAdapter
from tanzim.adapters.linear import effective
from tanzim.adapters.own import Change, OwnAdapter, standing
from tanzim.core.errors import ModelError
from tanzim.infer.cache import KVCache
from tanzim.infer.lowrank import LowRank, PlainAdapter, low_rank, unmixed
from tanzim.infer.mixed import Mix
from tanzim.infer.start import start_cache
from tanzim.models.integers import has_integers

Place = tuple[nn.Module, str, BaseTunerLayer]


class Weights:
    """Lends the model out as its base or as one adapter, and leaves it as it was.

    For the base, each adapted layer's place in the module tree is taken by the untouched base layer.
    For a LoRA adapter in float32, it is taken by a linear layer with the merged weight W + s·B·A
    (Hu et al., arXiv:2106.09685): one product instead of three, at the price of a second copy of
    those weights, kept for the adapter last used. In half precision merging would round, so PEFT's
    own layers compute. Adapters of our own kinds (`adapters.own`) and those of peft's other kinds
    (`adapters.lifted`) take their places likewise. Learnt vectors before the text (prefix, prompt and
    p-tuning) change no weight: each sequence begins with their keys and values, computed once.

    Adapters of low rank can also be computed beside one another, each for its own rows (`mixing`).

    Args:
        model: a transformers model, or one wrapped by PEFT.

    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._own: dict[str, OwnAdapter | LiftedAdapter | PlainAdapter] = {}
        self._starts: dict[str, KVCache] = {}
        self._changes: tuple[str, list[Change]] | None = None  # of the one of them last used
        self._model = model
        self._places = _places(self.bare)
        self._base = [layer.get_base_layer() for _, _, layer in self._places]
        self._merged: _Merged | None = None
        self._apart: set[str] = set()  # adapters that are not merged
        self._mix = Mix(self.bare)
        self._loaded: dict[str, int] = {}
        self._loads = 0

    def add_own(self, name: str, adapter: OwnAdapter | LiftedAdapter | PlainAdapter) -> None:
        """Take an adapter that stands apart from the model beside the others.

        Raises:
            ModelError: it does not fit the model.

        """
        with self.using(None):
            if isinstance(adapter, OwnAdapter):
                self._changes = name, adapter.changes(self.bare)
            elif isinstance(adapter, LiftedAdapter) and adapter.prompt is not None:
                self._starts[name] = start_cache(adapter.prompt)
            else:
                changes = (
                    adapter.low_rank()
                    if isinstance(adapter, PlainAdapter)
                    else low_rank(adapter.layers, NAME)
                )
                if changes is not None:
                    self._mixed(name, changes)
                elif has_integers(self.bare):
                    raise unmixed(f"{name}, which is another kind")
        self._own[name] = adapter
        self._loads += 1
        self._loaded[name] = self._loads

    def _mixed(self, name: str, changes: dict[str, LowRank]) -> None:
        try:
            self._mix.add(name, changes)
        except BaseException:  # one that does not fit leaves nothing behind
            if name in self._mix:
                self._mix.remove(name)
            raise

    def drop(self, name: str) -> None:
        """Take an adapter that `add_own` took out again, and what was made for it."""
        del self._own[name], self._loaded[name]
        self._starts.pop(name, None)
        if self._changes is not None and self._changes[0] == name:
            self._changes = None
        if name in self._mix:
            self._mix.remove(name)

    @property
    def bare(self) -> PreTrainedModel:
        """The model inside PEFT's wrapper."""
        model = self._model
        return cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        names = tuple(self._model.peft_config) if isinstance(self._model, PeftModel) else ()
        return names + tuple(self._own)

    def mixes(self, adapter: str | None) -> bool:
        """Whether rows of ``adapter`` can stand in a batch with those of others (see `mixing`)."""
        return adapter is None or adapter in self._mix

    def start(self, adapter: str | None) -> KVCache | None:
        """Return the keys and values that every sequence of ``adapter`` begins with; None for no such."""
        return None if adapter is None else self._starts.get(adapter)

    def module(self, adapter: str | None) -> nn.Module:
        """Return the module whose ``forward`` computes with ``adapter``, inside `using`."""
        own = self._own.get(adapter) if adapter is not None else None
        prompt = own.prompt if isinstance(own, LiftedAdapter) else None
        return self.bare if prompt is None else prompt

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Make the model compute with ``adapter`` (None: as the base) inside the block.

        Raises:
            ModelError: no such adapter is loaded.

        """
        if adapter is not None and adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise ModelError(f"there is no adapter '{adapter}' (loaded: {known})")
        if adapter in self._own:
            with self.using(None), standing(self._made(adapter)):
                yield
            return
        lent = self._base if adapter is None else self._merge(adapter)
        if adapter is not None and lent is None:
            with _selected([layer for _, _, layer in self._places], adapter):
                yield
            return
        for (parent, name, _), module in zip(self._places, lent or (), strict=True):
            parent._modules[name] = module
        try:
            yield
        finally:
            for parent, name, layer in self._places:
                parent._modules[name] = cast(nn.Module, layer)

    def version(self, adapter: str | None) -> tuple[str | None, int]:
        """Return what stands for an adapter as it is loaded now; another time it gets another number."""
        return adapter, 0 if adapter is None else self._loaded[adapter]

    @property
    def mix(self) -> Mix:
        """The adapters of low rank, side by side."""
        return self._mix

    def plan(self, tokens: Iterable[tuple[str | None, int]]) -> None:
        """Say whose the tokens of the next pass are (see `mixing`), for a forward pass beside the model's."""
        self._mix.set_plan(tokens, self.bare.device)

    @property
    def state(self) -> tuple[int, int]:
        """Two numbers that are others as soon as the base's weights are: in place, or at another place."""
        tensors = list(self.bare.parameters())
        return _version([x for x in tensors if not x.is_inference()]), sum(x.data_ptr() for x in tensors)

    @contextmanager
    def mixing(self, tokens: Iterable[tuple[str | None, int]]) -> Iterator[None]:
        """Make the model compute each token with its own adapter inside the block.

        Args:
            tokens: adapters for which `mixes` is true and how many tokens each has, in the order in
                which they stand in the batch, row by row.

        """
        self._mix.set_plan(tokens, self.bare.device)
        with self.using(None), standing(self._mix.changes):
            yield

    def _made(self, adapter: str) -> list[Change]:
        """Return what an adapter of our own kinds changes, made for it if another was used last."""
        if self._changes is None or self._changes[0] != adapter:
            self._changes = self._merged = None  # frees the other adapter's weights before these are made
            self._changes = adapter, self._own[adapter].changes(self.bare)
        return self._changes[1]

    @torch.no_grad()
    def _merge(self, adapter: str) -> list[nn.Module] | None:
        """Return the layers that compute as ``adapter``, one per place; None if merging is not exact."""
        held = self._merged
        if held is not None and held.adapter == adapter and held.version == _version(held.sources):
            return held.layers
        if adapter not in self._apart and not all(_mergeable(layer, adapter) for _, _, layer in self._places):
            self._apart.add(adapter)
        if adapter in self._apart:
            return None
        self._merged = self._changes = None  # frees the other adapter's before these are made
        layers: list[nn.Module] = []
        sources: list[Tensor] = []
        for _, _, place in self._places:
            layer = cast(LoraLinear, place)
            base = cast(nn.Linear, layer.get_base_layer())
            if adapter not in layer.lora_A:
                layers.append(base)
                continue
            factors = _factors(layer, adapter)
            merged = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
            weight_OI = effective(base.weight, *factors, layer.scaling[adapter])
            merged.weight = nn.Parameter(weight_OI, requires_grad=False)
            merged.bias = base.bias
            layers.append(merged)
            sources += factors
        self._merged = _Merged(adapter, layers, sources, _version(sources))
        return layers


@dataclass(frozen=True)
class _Merged:
    """The merged layers of one adapter, and the state of the matrices they were made of."""

    adapter: str
    layers: list[nn.Module]
    sources: list[Tensor]
    version: int


def _version(tensors: list[Tensor]) -> int:
    """Return a number that grows when one of the tensors is changed in place."""
    return sum(tensor._version for tensor in tensors)


def _places(model: nn.Module) -> list[Place]:
    """Find the adapted layers in the module tree."""
    return [
        (parent, name, cast(BaseTunerLayer, child))
        for parent in model.modules()
        if not isinstance(parent, BaseTunerLayer)
        for name, child in parent._modules.items()
        if isinstance(child, BaseTunerLayer)
    ]


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
