"""DyLoRA: one LoRA that works at every rank up to its own, so that the rank is chosen after training.

In every step a rank b is drawn evenly from [min_rank, rank], and the layers compute

    y = x·Wᵀ + (alpha / b) · (x·A[:b]ᵀ)·B[:, :b]ᵀ

so that the first ranks learn to do without the later ones (Valipour et al. 2022, arXiv:2210.07558; the
scale is that of the authors' code). Of the paper's two forms this is the one that trains all of the first
b ranks; the other ("frozen") trains the b-th alone, which it gives as the quicker and slightly weaker.
Evaluation and the saved adapter use ``saved_rank``: cut to it, it is plain LoRA of that rank. Prefer it
where one training must serve several sizes, or where the right rank is not known.

Legend: T rows, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor

from tanzim.adapters.config import DyLoraConfig
from tanzim.adapters.folder import CONFIG, RECORD, WEIGHTS, read_record
from tanzim.adapters.linear import OneProductLinear
from tanzim.adapters.lora import attach as attach_lora
from tanzim.adapters.method import Method
from tanzim.adapters.store import read_tensors
from tanzim.core.errors import ModelError
from tanzim.core.files import new_folder, read_json, write_json
from tanzim.core.records import Json
from tanzim.core.seeds import derive


class DyLoraLinear(OneProductLinear):
    """peft's LoRA layer, computing with its first ranks alone."""

    drawn: int
    kept: int

    def factors(self, name: str) -> tuple[Tensor, Tensor, float]:
        """Return the first rows of A, the first columns of B, and their scale alpha / b."""
        a_RI, b_OR, scale = super().factors(name)
        rank = self.drawn if self.training else self.kept
        return a_RI[:rank], b_OR[:, :rank], scale * len(a_RI) / rank

    def two_products(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - peft's signature
        """Apply the layer to x [..., I], base and adapter apart."""
        name = self.active_adapters[0]
        a_RI, b_OR, scale = self.factors(name)
        base: Tensor = self.base_layer(x)
        dropped: Tensor = self.lora_dropout[name](x.to(a_RI.dtype))
        return base + (dropped @ a_RI.T @ b_OR.T * scale).to(base.dtype)


def attach(model: Any, config: DyLoraConfig, *, seed: int, base_hash: str, base_name: str) -> Method:  # noqa: ANN401
    """Add a DyLoRA adapter to ``model`` and freeze everything else.

    Args:
        model: a transformers model; its layers are replaced in place.
        config: ranks, alpha, dropout and which layers.
        seed: the run's seed; A and every step's rank are drawn from it.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    Raises:
        ModelError: a named layer does not exist.

    """
    adapted = attach_lora(model, config, seed=seed)
    layers = [module for module in adapted.modules() if isinstance(module, OneProductLinear)]
    for layer in layers:
        layer.__class__ = DyLoraLinear
        cut = cast(DyLoraLinear, layer)
        cut.drawn, cut.kept = config.rank, config.saved_rank or config.rank
    return DyLora(adapted, config, cast(list[DyLoraLinear], layers), seed, base_hash, base_name)


class DyLora(Method):
    """Draws every step's rank, and saves the adapter cut to the rank that is kept."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a peft model
        config: DyLoraConfig,
        layers: list[DyLoraLinear],
        seed: int,
        base_hash: str,
        base_name: str,
    ) -> None:
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self.config, self.layers, self.seed = config, layers, seed

    def before_step(self, step: int, total: int) -> None:
        """Draw the rank of this step: from the seed and its number, so that a resumed run draws the same."""
        draw = random.Random(derive(self.seed, "dylora", step))
        rank = draw.randint(self.config.min_rank, self.config.rank)
        for layer in self.layers:
            layer.drawn = rank

    def save(self, folder: Path) -> None:
        """Write the adapter, cut to ``saved_rank``, as plain LoRA."""
        super().save(folder)
        facts = self.config.model_dump(mode="json")
        write_json(folder / RECORD, read_record(folder) | {"method": facts})
        kept = self.config.saved_rank or self.config.rank
        if kept < self.config.rank:
            cut_adapter(folder, folder, kept)


def cut_adapter(folder: Path, output: Path, rank: int) -> None:
    """Cut a trained DyLoRA adapter to a lower rank.

    Args:
        folder: the adapter, as a run saved it.
        output: where the cut one goes, plain LoRA in PEFT's layout; replaced if it exists.
        rank: the rank to keep, from ``min_rank`` to the adapter's own.

    Raises:
        ModelError: it was not trained by DyLoRA, or not at this rank.

    """
    record, config = read_record(folder), read_json(folder / CONFIG)
    method: Json = record.get("method") or {}
    if method.get("type") != "dylora":
        raise ModelError(
            "only an adapter trained by DyLoRA works at lower ranks than its own",
            where=str(folder),
            fix="train with train.method.type=dylora",
        )
    if not method["min_rank"] <= rank <= config["r"]:
        raise ModelError(
            f"this adapter was trained at ranks {method['min_rank']} to {config['r']}, not {rank}",
            where=str(folder),
        )
    tensors = {name: _cut(name, value, rank) for name, value in read_tensors(folder / WEIGHTS).items()}
    with new_folder(output) as temporary:
        write_json(temporary / CONFIG, config | {"r": rank})
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / RECORD, record)


def _cut(name: str, value: Tensor, rank: int) -> Tensor:
    """Keep the first rows of A and the first columns of B; a trained head stays whole."""
    if name.endswith("lora_A.weight"):
        return value[:rank].contiguous()
    return value[:, :rank].contiguous() if name.endswith("lora_B.weight") else value
