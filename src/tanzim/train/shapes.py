"""The sizes of a model from its ``config.json`` alone: nothing is loaded, no memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tanzim.adapters.config import LoraConfig, MethodConfig
from tanzim.adapters.fast import KNOWN
from tanzim.models.load import is_causal


@dataclass(frozen=True, slots=True)
class Shapes:
    """Sizes that memory and time follow from.

    Args:
        parameters: weights of the model, tied ones once.
        linear: weights in its linear layers, without the vocabulary's.
        trained: weights that are trained.
        layers: how many layers; the next four are sizes within one.
        hidden: width between layers.
        queries: width of all query heads together; ``keys`` of all key heads.
        keys: width of all key heads together, and of all value heads.
        inner: width of the feed-forward block.
        vocabulary: how many tokens there are.
        fast: whether the adapters' fast layers know this architecture.

    """

    parameters: int
    linear: int
    trained: int
    layers: int
    hidden: int
    queries: int
    keys: int
    inner: int
    vocabulary: int
    fast: bool


def shapes(path: Path, method: MethodConfig) -> Shapes:
    """Read the sizes of the model in the folder ``path``, trained as ``method`` says."""
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    auto: Any = AutoModelForCausalLM if is_causal(config) else AutoModel
    with torch.device("meta"):
        model = auto.from_config(config)
    head = model.get_output_embeddings()
    linear = {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    parameters = sum(p.numel() for p in model.parameters())
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    trained = parameters
    if isinstance(method, LoraConfig):
        chosen = [weight for name, weight in linear.items() if _is_target(name, method.target_modules)]
        trained = sum(method.rank * sum(weight.shape) for weight in chosen)
    return Shapes(
        parameters=parameters,
        linear=sum(weight.numel() for weight in linear.values()),
        trained=trained,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        fast=any(type(module).__name__ in KNOWN for module in model.modules()),
    )


def _is_target(name: str, targets: str | list[str]) -> bool:
    """Choose the layers that ``train.method.target_modules`` names, as `adapters.lora.attach` does."""
    if targets == "all-linear":
        return True
    names = [targets] if isinstance(targets, str) else targets
    return any(name == target or name.endswith(f".{target}") for target in names)
