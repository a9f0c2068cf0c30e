"""SpIEL: sparse differences W + Δ, whose few places move to where the gradient is (accumulated gradients).

Δ has a value δ at ``density`` of each matrix's places, and nothing else is kept: no dense gradient, no
dense moment (Ansell et al. 2024, arXiv:2401.16405, SpIEL-AG; a layer's dense gradient lives for a
moment in the backward pass). Every ``regrow_steps`` steps, of n places

    drop   the k with the smallest |δ|, which changed least from the base,
    grow   the k others with the largest |Σ ∂L/∂W|, summed over the last ``growth_steps`` steps,

with k = n · regrow_share · (1 − t/T). A grown place begins at δ = 0 with the optimiser's moments at
zero. Places drawn by chance at first are all chosen again by gradient after ``growth_steps`` steps, as
the authors' code does. Sums are kept for n candidates alone, the largest gradients of the first pass (on
several ranks: the first rank's, of its own documents).

Prefer it to LoRA where changes are spread thin over many rows, or where an adapter must merge exactly
and touch little; it costs a dense gradient product per layer.

Legend: T rows, I inputs, O outputs, N places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tanzim.adapters.blocks import linear_layers
from tanzim.adapters.config import SpielConfig
from tanzim.adapters.linear import WIDE_DTYPES
from tanzim.adapters.method import Method, refuse_shards
from tanzim.adapters.own import Change, OwnMethod, fitting, freeze, module_change, parameter_change
from tanzim.adapters.sparse import Growth, SparseLinear, replace, scattered, zero_moments
from tanzim.core.errors import ModelError
from tanzim.core.records import Json
from tanzim.core.seeds import derive

KEY = "train.method.density"


def attach(model: Any, config: SpielConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Give the chosen layers of ``model`` sparse differences, and freeze everything else.

    Args:
        model: a transformers model; its layers are wrapped in place.
        config: how many places, and when they move.
        seed: the run's seed; the first places are drawn from it.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a named layer does not exist, or the density leaves a layer without a place.

    """
    chosen = linear_layers(model, config.target_modules)
    freeze(model)
    layers = {}
    for path, layer in chosen.items():
        size = layer.weight.numel()
        count = int(config.density * size)
        if not count:
            raise ModelError(
                f"a density of {config.density:g} gives {path} no place: it has {size:,} weights",
                where=KEY,
                fix=f"use at least {1 / size:.1g}",
            )
        draw = np.random.default_rng(derive(seed, "spiel", path))
        places_N = np.sort(draw.choice(size, count, replace=False, shuffle=False))
        layers[path] = SparseLinear(layer, torch.from_numpy(places_N))
        module_change(model, path, layers[path]).swap()
    return Spiel(model, config, layers, base_hash=base_hash, base_name=base_name)


class Spiel(OwnMethod):
    """Moves the places of the sparse differences.

    Args:
        model: with `SparseLinear` in place.
        config: the method's section.
        layers: those layers, by path.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    """

    def __init__(
        self,
        model: nn.Module,
        config: SpielConfig,
        layers: Mapping[str, SparseLinear],
        *,
        base_hash: str,
        base_name: str,
    ) -> None:
        super().__init__(model, config, base_hash=base_hash, base_name=base_name)
        self.settings = config
        self.layers = layers
        self._optimizer: Optimizer | None = None
        self._say: Callable[[int, str], None] = lambda step, message: None

    def begin(self, *, optimizer: Optimizer, steps_in_epoch: int, say: Callable[[int, str], None]) -> None:
        """Keep the optimiser, whose moments belong to places."""
        refuse_shards(self.parameters.values(), "spiel")
        self._optimizer, self._say = optimizer, say

    def before_step(self, step: int, total: int) -> None:
        """Begin to watch the dense gradients some steps before places move."""
        every, span = self.settings.regrow_steps, self.settings.growth_steps
        watching = step < span or step % every >= every - span
        for layer in self.layers.values():
            if not watching:
                layer.growth = None
            elif layer.growth is None:
                layer.growth = Growth()

    def before_update(self, step: int, total: int) -> None:
        """Count the gradients of a whole step."""
        for layer in self.layers.values():
            if layer.growth is not None:
                layer.growth.count()

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """Move places where it is time: all of them at first, then a falling share."""
        done = step + 1
        first = done == self.settings.growth_steps
        if done >= total or not (first or done % self.settings.regrow_steps == 0):
            return
        share = 1.0 if first else self.settings.regrow_share * (1 - done / total)
        moved = sum(self._move(layer, share) for layer in self.layers.values())
        places = sum(layer.delta.numel() for layer in self.layers.values())
        self._say(done, f"spiel: {moved:,} of {places:,} places moved to where the gradient is larger")

    def _move(self, layer: SparseLinear, share: float) -> int:
        candidates_N, sums_N = (_first_rank(tensor) for tensor in _known(layer))
        layer.growth = None
        if int(candidates_N[0]) < 0:
            return 0
        growth = Growth(candidates_N, sums_N)
        changed = replace(layer.places, layer.delta, growth, share)
        if self._optimizer is not None:
            zero_moments(self._optimizer.state.get(layer.delta, {}), layer.delta.shape, changed)
        return len(changed)

    def state(self) -> dict[str, Tensor]:
        """Return where the places are, and what is known of those that may grow (-1: nothing yet)."""
        state: dict[str, Tensor] = {}
        for path, layer in self.layers.items():
            candidates_N, sums_N = _known(layer)
            state |= {
                f"{path}.places": layer.places,
                f"{path}.candidates": candidates_N,
                f"{path}.sums": sums_N,
            }
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put the places and the sums back."""
        for path, layer in self.layers.items():
            layer.places.copy_(state[f"{path}.places"])
            candidates_N = state[f"{path}.candidates"].to(layer.places)
            layer.growth = None
            if int(candidates_N[0]) >= 0:
                layer.growth = Growth(candidates_N, state[f"{path}.sums"].to(layer.delta))

    def tensors(self) -> dict[str, Tensor]:
        """Return values and places, by name."""
        return super().tensors() | {f"{path}.places": layer.places for path, layer in self.layers.items()}


def _known(layer: SparseLinear) -> tuple[Tensor, Tensor]:
    """Return the candidates for growth and their summed gradients; candidates of -1 where there are none."""
    if layer.growth is None or layer.growth.candidates_N is None or layer.growth.sums_N is None:
        return torch.full_like(layer.places, -1), torch.zeros_like(layer.delta)
    return layer.growth.candidates_N.to(layer.places.dtype), layer.growth.sums_N.to(layer.delta.dtype)


def _first_rank(tensor: Tensor) -> Tensor:
    """Return the first rank's tensor: each rank sums its own documents' gradients, and all must agree."""
    if dist.is_available() and dist.is_initialized():
        tensor = tensor.clone()
        dist.broadcast(tensor, 0)
    return tensor


def changes(model: Any, settings: Json, tensors: Mapping[str, Tensor]) -> list[Change]:  # noqa: ANN401
    """Return the places of ``model`` that a trained adapter takes.

    In float32 these are the merged weights W + Δ. In half precision, where a sum would round, they are
    layers that compute both products.

    Raises:
        ModelError: a tensor does not fit.

    """
    layers = linear_layers(model, settings["target_modules"])
    counts = {path: int(settings["density"] * layer.weight.numel()) for path, layer in layers.items()}
    names = {f"{path}.{part}": (count,) for path, count in counts.items() for part in ("delta", "places")}
    fitting(names, tensors)
    made = []
    for path, layer in layers.items():
        places_N = tensors[f"{path}.places"].to(layer.weight.device)
        delta_N = tensors[f"{path}.delta"].to(layer.weight.device)
        if int(places_N.min()) < 0 or int(places_N.max()) >= layer.weight.numel():
            raise ModelError(f"the places of {path} lie outside its {layer.weight.numel():,} weights")
        if layer.weight.dtype in WIDE_DTYPES:
            merged = scattered(layer.weight.detach(), places_N, delta_N)
            made.append(parameter_change(model, f"{path}.weight", merged))
        else:
            sparse = SparseLinear(layer, places_N)
            sparse.delta.data = delta_N
            made.append(module_change(model, path, sparse.requires_grad_(False)))
    return made
