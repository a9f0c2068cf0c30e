"""Adapters with random values, and what plain transformers and peft generate with them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from pydantic import TypeAdapter

from tanzim.adapters.attach import attach
from tanzim.adapters.config import MethodConfig

HASH = "0" * 64


def save_changed(base: torch.nn.Module, folder: Path, seed: int, **method: Any) -> Path:
    """Save an adapter whose values are no longer those it starts with."""
    settings: Any = TypeAdapter(MethodConfig).validate_python(method)
    made = attach(copy.deepcopy(base), settings, seed=seed, base_hash=HASH, base_name="tiny")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.parameters.values():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.2)
    made.save(folder)
    return folder


@torch.no_grad()
def generated(base: torch.nn.Module, folder: Path | None, prompt: list[int], count: int) -> tuple[int, ...]:
    """Generate greedily as anyone would, with transformers and plain peft."""
    ids = torch.tensor([prompt])
    model: Any = copy.deepcopy(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if folder is not None:
            model = peft.PeftModel.from_pretrained(model, str(folder)).eval()
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return tuple(whole[0, len(prompt) :].tolist())
