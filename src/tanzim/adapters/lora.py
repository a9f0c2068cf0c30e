"""Attach LoRA to a model: peft's modules and format, seeded, in the one-product form.

y = x·(W + s·B·A)ᵀ with s = alpha / rank (Hu et al. 2021, arXiv:2106.09685), or alpha / √rank (rsLoRA,
Kalajdzievski 2023, arXiv:2312.03732). The first choice for small data and small machines; rsLoRA where
the rank is high (64 and more), since its updates do not shrink with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import peft
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.config import (
    DoraConfig,
    DyLoraConfig,
    LoraConfig,
    LoraFaConfig,
    QloraConfig,
    RsLoraConfig,
)
from tanzim.adapters.heads import task_settings
from tanzim.adapters.linear import wrap
from tanzim.adapters.method import Method
from tanzim.core.errors import ModelError
from tanzim.core.seeds import derive

ALL_LINEAR = "all-linear"
KEY = "train.method.target_modules"
Family = LoraConfig | RsLoraConfig | DoraConfig | QloraConfig | LoraFaConfig | DyLoraConfig


def attach(model: PreTrainedModel, config: Family, *, seed: int) -> peft.PeftModel:
    """Add an adapter of the LoRA family named ``default`` to ``model`` and freeze everything else.

    Args:
        model: the base model; its modules are replaced in place.
        config: rank, alpha, dropout and which layers.
        seed: the run's seed; A is drawn from the seed derived as "lora", B is zero.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    settings = peft.LoraConfig(
        **task_settings(model),
        r=config.rank,
        lora_alpha=whole(config.alpha),  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        use_rslora=config.type == "rslora",
        use_dora=config.type == "dora",
        target_modules=targets(model, config.target_modules),
        fan_in_fan_out=transposed(model),
    )
    return wrap_seeded(model, settings, seed)


def wrap_seeded(model: PreTrainedModel, settings: peft.PeftConfig, seed: int) -> peft.PeftModel:
    """Put a new adapter named ``default`` on ``model``, whose random values depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora"))
        return wrap(model, settings, "default")


def transposed(model: nn.Module) -> bool:
    """Tell whether the model's matrices stand the other way round (GPT-2's Conv1D)."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def whole(alpha: float) -> float:
    """Return a whole number as one: readers of PEFT's format expect it."""
    return int(alpha) if alpha.is_integer() else alpha


def attach_method(
    model: PreTrainedModel, config: Family, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Do `attach`, as a method of training."""
    return Method(attach(model, config, seed=seed), base_hash=base_hash, base_name=base_name)


def targets(model: PreTrainedModel, wanted: str | list[str]) -> str | list[str]:
    """Check the names of the layers to adapt against those the model has."""
    if wanted == ALL_LINEAR:
        return ALL_LINEAR
    names = [wanted] if isinstance(wanted, str) else wanted
    if not names:
        raise ModelError("no layer to adapt is named", where=KEY, fix=f"use {ALL_LINEAR}")
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    for name in names:
        if not any(path == name or path.endswith(f".{name}") for path in linear):
            raise ModelError(
                f"the model has no linear layer '{name}' that can be adapted",
                where=KEY,
                fix=f"nearest: {', '.join(_nearest(name, linear))}",
            )
    return names


def _nearest(name: str, paths: Iterable[str]) -> list[str]:
    """Return the layer names most like ``name``, or all of them if none is."""
    known = sorted({path.rsplit(".", 1)[-1] for path in paths})
    return difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
