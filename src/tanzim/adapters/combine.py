"""Combine LoRA adapters of one base into one LoRA adapter.

With adapters i of weight w_i and updates ΔW_i = s_i·B_i·A_i:

- ``cat`` stacks the factors: ΔW = Σ w_i ΔW_i exactly; ranks add (16 + 16 → 32).
- ``svd`` takes the best approximation of Σ w_i ΔW_i of a given rank (Eckart and Young 1936).
- ``linear`` adds the factors, A = Σ √(w_i s_i)·A_i and B likewise; cheap, but ΔW gets the cross terms
  B_i·A_j. A negative weight's sign stands in A alone.
- ``ties`` (Yadav et al. 2023, arXiv:2306.01708) keeps of each tensor the share ``density`` that is largest
  in magnitude, elects for each number the sign with the larger sum, and averages what has that sign.
- ``dare_linear``, ``dare_ties`` (Yu et al. 2023, arXiv:2311.03099) drop numbers at random, keep the share
  ``density`` and divide it by ``density``, so that the expectation stays; then add, or elect and average.

The last three work on A and B apart, as ``linear`` does. Their papers mean ΔW itself: ``ties_svd``,
``dare_linear_svd`` and ``dare_ties_svd`` do that, and bring the result to LoRA's form by SVD.

Legend: R rank, I inputs and O outputs of a layer, N adapters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tanzim.adapters.lora_files import Factors, LoraFiles, read_lora, write_lora
from tanzim.adapters.recipe import Recipe
from tanzim.core.errors import ConfigError, ModelError, WrongBaseError
from tanzim.core.records import Progress, no_progress
from tanzim.core.seeds import derive

SLOW_RANK = 100
Merge = Callable[[list[Tensor], Tensor, float, torch.Generator], Tensor]


def combine(
    folders: Sequence[Path],
    out: Path,
    recipe: Recipe,
    *,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress = no_progress,
) -> int:
    """Combine adapters and write the result as an adapter in PEFT's layout, whole or not at all.

    Args:
        folders: the adapters, plain LoRA for one base; ranks and layers may differ where the mode allows.
        out: the new adapter's folder; replaced if it exists.
        recipe: how, with a weight per adapter.
        names: what the adapters are called in the result's ``tanzim.json``; their folders, if not given.
        say: takes warnings.
        progress: told after each layer.

    Returns:
        The rank of the result.

    Raises:
        ConfigError: the weights are too few or too many.
        ModelError: an adapter is not plain LoRA, or the ranks do not fit the mode.
        WrongBaseError: the adapters are for different base weights.

    """
    if len(folders) != len(recipe.weights):
        raise ConfigError(
            f"{len(recipe.weights)} weights for {len(folders)} adapters", fix="give one for each"
        )
    adapters = [read_lora(folder) for folder in folders]
    _check_bases(adapters)
    rank = _rank(adapters, recipe)
    by_svd = recipe.mode.endswith("svd")
    if by_svd and max(rank, *(adapter.rank for adapter in adapters)) > SLOW_RANK:
        ranks = ", ".join(str(adapter.rank) for adapter in adapters)
        say(
            f"warning: SVD above rank {SLOW_RANK} (here {ranks} → {rank}) can take hours on a large model "
            "and makes a heavy adapter; a lower rank may be asked for"
        )
    paths = sorted({path for adapter in adapters for path in adapter.layers})
    layers = {}
    for number, path in enumerate(paths, 1):
        present = [
            (a.layers[path], w) for a, w in zip(adapters, recipe.weights, strict=True) if path in a.layers
        ]
        generator = torch.Generator().manual_seed(derive(recipe.seed, "combine", path))
        factors, weights = [one for one, _ in present], [weight for _, weight in present]
        layers[path] = _padded(_combined(path, factors, weights, recipe, rank, generator), rank)
        progress(number, len(paths), path)
    made = {**recipe.to_json(), "adapters": list(names or map(str, folders))}
    write_lora(out, layers, adapters[0], _targets(adapters, paths), made)
    return rank


def _check_bases(adapters: Sequence[LoraFiles]) -> None:
    first = adapters[0]
    for other in adapters[1:]:
        if other.base_hash != first.base_hash:
            raise WrongBaseError(
                f"these adapters are for different base weights: '{first.base}' {first.base_hash[:12]}… and "
                f"'{other.base}' {other.base_hash[:12]}…",
                where=f"{first.path}, {other.path}",
                fix="combine adapters of one base",
            )
        if bool(other.config.get("fan_in_fan_out")) != bool(first.config.get("fan_in_fan_out")):
            raise ModelError("these adapters disagree on fan_in_fan_out", where=f"{first.path}, {other.path}")
        for path in first.layers.keys() & other.layers.keys():
            ours, theirs = first.layers[path], other.layers[path]
            if (ours.a_RI.shape[1], ours.b_OR.shape[0]) != (theirs.a_RI.shape[1], theirs.b_OR.shape[0]):
                raise ModelError(
                    f"the layer '{path}' has another size in each", where=f"{first.path}, {other.path}"
                )


def _rank(adapters: Sequence[LoraFiles], recipe: Recipe) -> int:
    """Return the rank of the result, or refuse adapters whose ranks the mode cannot join."""
    if recipe.mode.endswith("svd"):
        return recipe.rank or max(adapter.rank for adapter in adapters)
    if recipe.rank is not None:
        raise ConfigError(
            f"'{recipe.mode}' decides the rank itself", fix="leave the rank out, or take a mode with svd"
        )
    if recipe.mode == "cat":
        return sum(adapter.rank for adapter in adapters)
    shared: dict[str, int] = {}
    for adapter in adapters:
        for path, factors in adapter.layers.items():
            rank = factors.a_RI.shape[0]
            if shared.setdefault(path, rank) != rank:
                raise ModelError(
                    f"'{recipe.mode}' adds the factors, so ranks must be equal; '{path}' has "
                    f"{shared[path]} and {rank}",
                    where=", ".join(str(one.path) for one in adapters),
                    fix="take cat (ranks add) or a mode with svd",
                )
    return max(shared.values())


def _targets(adapters: Sequence[LoraFiles], paths: Sequence[str]) -> list[str]:
    """Return peft's ``target_modules`` that name exactly ``paths``."""
    names: set[str] = set()
    for adapter in adapters:
        config = adapter.config
        wanted = config.get("target_modules")
        narrowed = any(
            config.get(key) for key in ("layers_to_transform", "layers_pattern", "exclude_modules")
        )
        if not isinstance(wanted, list) or narrowed:
            return list(paths)
        names |= set(wanted)
    return sorted(names)


def _padded(factors: Factors, rank: int) -> Factors:
    """Fill a layer up to ``rank`` with zeros, so that all layers have one."""
    more = rank - factors.a_RI.shape[0]
    return Factors(
        functional.pad(factors.a_RI, (0, 0, 0, more)), functional.pad(factors.b_OR, (0, more)), factors.scale
    )


def _combined(
    path: str,
    factors: Sequence[Factors],
    weights: Sequence[float],
    recipe: Recipe,
    rank: int,
    generator: torch.Generator,
) -> Factors:
    scales = [weight * one.scale for weight, one in zip(weights, factors, strict=True)]
    if recipe.mode in ("cat", "svd"):
        a_RI = torch.cat([scale * one.a_RI for scale, one in zip(scales, factors, strict=True)])
        b_OR = torch.cat([one.b_OR for one in factors], 1)
        return Factors(a_RI, b_OR, 1) if recipe.mode == "cat" else _truncated(a_RI, b_OR, rank)
    merge = _MERGES[recipe.mode.removesuffix("_svd")]
    if recipe.mode.endswith("_svd"):
        updates = [one.scale * (one.b_OR @ one.a_RI) for one in factors]
        delta_OI = merge(updates, torch.tensor(weights), recipe.density, generator)
        u_OK, s_K, v_KI = torch.linalg.svd(delta_OI, full_matrices=False)
        return Factors(v_KI[:rank], u_OK[:, :rank] * s_K[:rank], 1)
    roots = torch.tensor([math.sqrt(abs(scale)) for scale in scales])
    signs = torch.tensor([math.copysign(1, scale) for scale in scales])
    a_RI = merge([one.a_RI for one in factors], roots * signs, recipe.density, generator)
    return Factors(a_RI, merge([one.b_OR for one in factors], roots, recipe.density, generator), 1)


def _truncated(a_RI: Tensor, b_OR: Tensor, rank: int) -> Factors:
    """Return the best approximation of B·A of lower rank, without ever making the [O, I] product.

    With B = Q_B·R_B and Aᵀ = Q_A·R_A, the SVD of the small R_B·R_Aᵀ gives that of B·A.
    """
    q_OR, r_RR = torch.linalg.qr(b_OR)
    p_IR, t_RR = torch.linalg.qr(a_RI.T)
    u_RR, s_R, v_RR = torch.linalg.svd(r_RR @ t_RR.T, full_matrices=False)
    return Factors(v_RR[:rank] @ p_IR.T, (q_OR @ u_RR[:, :rank]) * s_R[:rank], 1)


def _largest(tensor: Tensor, density: float) -> Tensor:
    """Keep the share ``density`` of the numbers that is largest in magnitude, zero the rest."""
    kept = torch.zeros_like(tensor).flatten()
    kept[tensor.abs().flatten().topk(int(density * tensor.numel())).indices] = 1
    return tensor * kept.view_as(tensor)


def _some(tensor: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Keep each number with the probability ``density``, and divide it by that."""
    kept = torch.bernoulli(torch.full_like(tensor, density), generator=generator)
    return tensor * kept / density


def _sum(tensors: Sequence[Tensor], weights_N: Tensor) -> Tensor:
    total: Tensor = torch.tensordot(weights_N.to(tensors[0].dtype), torch.stack(list(tensors)), 1)
    return total


def _elected(tensors: Sequence[Tensor], weights_N: Tensor) -> Tensor:
    """Average, number by number, those whose sign has the larger sum."""
    stack_NXY = torch.stack(list(tensors))
    sign_XY = torch.where(stack_NXY.sum(0) >= 0, 1.0, -1.0)
    agrees_NXY = (stack_NXY.sign() == sign_XY).to(stack_NXY.dtype)
    total_XY: Tensor = torch.tensordot(weights_N.to(stack_NXY.dtype), stack_NXY * agrees_NXY, 1)
    return total_XY / agrees_NXY.sum(0).clamp(min=1)


_MERGES: Mapping[str, Merge] = {
    "linear": lambda tensors, weights, density, generator: _sum(tensors, weights),
    "ties": lambda tensors, weights, density, generator: _elected(
        [_largest(tensor, density) for tensor in tensors], weights
    ),
    "dare_linear": lambda tensors, weights, density, generator: _sum(
        [_some(tensor, density, generator) for tensor in tensors], weights
    ),
    "dare_ties": lambda tensors, weights, density, generator: _elected(
        [_some(tensor, density, generator) for tensor in tensors], weights
    ),
}
