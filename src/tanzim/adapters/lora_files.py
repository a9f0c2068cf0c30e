"""Plain LoRA adapters as files: read without a base model, written so that plain peft loads them.

Legend: R rank, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tanzim.adapters.folder import CONFIG, RECORD, WEIGHTS, check_base, read_record
from tanzim.core.errors import ModelError
from tanzim.core.files import new_folder, read_json, write_json
from tanzim.core.records import Json

_PREFIX = "base_model.model."
# Settings that say how an adapter was trained or where it belongs, not what it computes.
_FREE = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "lora_ga_config", "loftq_config", "megatron_config", "megatron_core", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_rslora", "ensure_weight_tying",
}  # fmt: skip
# Ways of starting that leave the base's weights alone; the others (PiSSA, OLoRA…) change them.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Factors:
    """One layer's update ΔW = scale · B·A."""

    a_RI: Tensor
    b_OR: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class LoraFiles:
    """A plain LoRA adapter in memory.

    Args:
        path: where it was read.
        base: id of its base model.
        base_hash: SHA-256 of the base's weights.
        config: ``adapter_config.json``.
        layers: path of a layer in the base model → its factors, in the order of the paths.

    """

    path: Path
    base: str
    base_hash: str
    config: Json
    layers: Mapping[str, Factors]

    @property
    def rank(self) -> int:
        """The highest rank of any layer."""
        return max(factors.a_RI.shape[0] for factors in self.layers.values())


def read_lora(folder: Path) -> LoraFiles:
    """Read an adapter that is plain LoRA (rank-stabilised or not), in float32.

    Args:
        folder: PEFT layout with ``tanzim.json``.

    Raises:
        ModelError: it is another kind, has parts beside B·A, is damaged, or holds NaN or infinity.
        WrongBaseError: it does not say which base weights it was made for.

    """
    record = read_record(folder)
    base_hash = str(record.get("base_hash"))
    check_base(folder, base_hash)
    config: Json = read_json(folder / CONFIG)
    _check_plain(config, folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_tensors(folder / WEIGHTS).items():
        layer, _, part = key.removeprefix(_PREFIX).rpartition(".lora_")
        if part not in ("A.weight", "B.weight") or not key.startswith(_PREFIX):
            raise ModelError(
                f"it holds '{key}', which is no LoRA factor of a linear layer",
                where=str(folder),
                fix="only plain LoRA on linear layers can be combined",
            )
        pairs.setdefault(layer, {})[part[0]] = tensor.float()
    layers = {layer: _factors(layer, pairs[layer], config, folder) for layer in sorted(pairs)}
    if not layers:
        raise ModelError("it holds no weights", where=str(folder))
    return LoraFiles(folder, str(record.get("base") or ""), base_hash, config, layers)


def is_plain(config: Json) -> bool:
    """Tell whether an adapter of this ``adapter_config.json`` is plain LoRA."""
    return _odd(config) is None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file.

    Raises:
        ModelError: the file is damaged.

    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ModelError(f"the adapter's weights are damaged: {error}", where=str(path)) from error


def write_lora(
    folder: Path, layers: Mapping[str, Factors], like: LoraFiles, targets: list[str], made: Json
) -> None:
    """Write layers of one rank, whose scale is 1, as an adapter in PEFT's layout, whole or not at all.

    Args:
        folder: replaced if it exists.
        layers: path of a layer in the base model → its factors.
        like: an adapter for the same base, whose other settings are taken over.
        targets: peft's ``target_modules``.
        made: how it was made; kept in ``tanzim.json``.

    """
    ranks = {factors.a_RI.shape[0] for factors in layers.values()}
    assert len(ranks) == 1
    assert all(factors.scale == 1 for factors in layers.values())
    rank = ranks.pop()
    config = {
        **like.config,
        "r": rank,
        "lora_alpha": rank,  # scale alpha / r = 1: the factors carry it
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "target_modules": targets,
        "layers_to_transform": None,
        "layers_pattern": None,
        "exclude_modules": None,
        "inference_mode": True,
        "base_model_name_or_path": like.base or like.config.get("base_model_name_or_path"),
    }
    tensors = {}
    for path, factors in layers.items():
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = factors.a_RI.contiguous()
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = factors.b_OR.contiguous()
    with new_folder(folder) as temporary:
        write_json(temporary / CONFIG, config)
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / RECORD, {"base": like.base, "base_hash": like.base_hash, "made": made})


def _check_plain(config: Json, folder: Path) -> None:
    odd = _odd(config)
    if odd is not None:
        raise ModelError(
            f"only plain LoRA can be combined or compared layer by layer; this adapter has {odd}",
            where=str(folder),
            fix="train it with train.method.type lora, rslora, qlora, lora_fa or dylora",
        )


def _odd(config: Json) -> str | None:
    """Return the first setting that makes an adapter something else than W + s·B·A, in words."""
    if config.get("peft_type") != "LORA":
        return f"peft_type {config.get('peft_type')}"
    start = config.get("init_lora_weights", True)
    if start not in _STARTS:
        return f"init_lora_weights {start}, which changes the base's own weights"
    for key, value in config.items():
        if key not in _FREE and key != "init_lora_weights" and value not in (None, False, {}, [], "none"):
            return f"{key}={value}"
    return None


def _factors(layer: str, pair: dict[str, Tensor], config: Json, folder: Path) -> Factors:
    if set(pair) != {"A", "B"}:
        raise ModelError(
            f"the layer '{layer}' has no factor {'B' if 'A' in pair else 'A'}", where=str(folder)
        )
    a_RI, b_OR = pair["A"], pair["B"]
    if a_RI.dim() != 2 or b_OR.dim() != 2 or a_RI.shape[0] != b_OR.shape[1]:
        shapes = f"{tuple(a_RI.shape)} and {tuple(b_OR.shape)}"
        raise ModelError(f"the factors of '{layer}' do not fit together: {shapes}", where=str(folder))
    if not (torch.isfinite(a_RI).all() and torch.isfinite(b_OR).all()):
        raise ModelError(
            f"the factors of '{layer}' hold NaN or infinity", where=str(folder), fix="train again"
        )
    rank, alpha = _setting(config, "rank", "r", layer), _setting(config, "alpha", "lora_alpha", layer)
    if rank != a_RI.shape[0]:
        raise ModelError(
            f"the factors of '{layer}' have rank {a_RI.shape[0]}, {CONFIG} says {rank}", where=str(folder)
        )
    if not math.isfinite(alpha):
        raise ModelError(f"lora_alpha of '{layer}' is {alpha}", where=str(folder / CONFIG))
    return Factors(a_RI, b_OR, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _setting(config: Json, pattern: str, default: str, layer: str) -> float:
    """Return a layer's own rank or alpha, by the first of peft's patterns that fits, else the adapter's."""
    own: Mapping[str, float] = config.get(f"{pattern}_pattern") or {}
    matching = (value for key, value in own.items() if re.match(rf"(.*\.)?({key})$", layer))
    return next(matching, float(config[default]))
