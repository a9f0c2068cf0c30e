"""Attach LoRA to a model: peft's modules and format, seeded, in the one-product form."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable

import peft
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.config import LoraConfig
from tanzim.adapters.linear import fuse
from tanzim.core.errors import ModelError
from tanzim.core.seeds import derive

ALL_LINEAR = "all-linear"
KEY = "train.adapter.target_modules"


def attach(model: PreTrainedModel, config: LoraConfig, *, seed: int) -> peft.PeftModel:
    """Add a LoRA adapter named ``default`` to ``model`` and freeze everything else.

    Args:
        model: the base model; its modules are replaced in place.
        config: rank, alpha, dropout and which layers.
        seed: the run's seed; A is drawn from the seed derived as "lora", B is zero.

    Raises:
        ModelError: a named layer does not exist, or cannot be adapted.

    """
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    settings = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=config.rank,
        # Readers of PEFT's format expect a whole number where it is one.
        lora_alpha=int(config.alpha) if config.alpha.is_integer() else config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=_targets(model, config.target_modules),
        # GPT-2's Conv1D keeps its matrix the other way round.
        fan_in_fan_out=transposed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora"))
        return wrap(model, settings, "default")


def wrap(model: PreTrainedModel, settings: peft.PeftConfig, name: str) -> peft.PeftModel:
    """Put a new adapter on a model without one, in the one-product form."""
    with warnings.catch_warnings():
        # peft 0.21 still asks transformers by the old name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        adapted: peft.PeftModel = peft.get_peft_model(model, settings, adapter_name=name)
    fuse(adapted)
    return adapted


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> str | list[str]:
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
