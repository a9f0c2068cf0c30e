"""Open a resolved base: its tokenizer, and its model with our attention."""

from __future__ import annotations

from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tanzim.core.errors import ModelError
from tanzim.models.config import ModelConfig
from tanzim.models.kernels.attention import ATTENTION, register
from tanzim.models.quiet import quiet
from tanzim.models.resolve import Base

# The first CUDA compute capability that computes in bfloat16 (Ampere).
BF16_CAPABILITY = (8, 0)
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def pick_device(config: ModelConfig) -> torch.device:
    """Return the device to compute on; ``auto`` takes CUDA if it is there, else the CPU.

    Raises:
        ModelError: the config asks for a device that is not there.

    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[config.device]:
        raise ModelError(
            f"model.device is {config.device}, but PyTorch finds no such device",
            fix="set model.device to auto; `tanzim doctor` says why",
        )
    return torch.device(config.device)


def pick_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """Return the precision of the base weights; ``auto`` takes bfloat16 where CUDA computes in it."""
    if config.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[config.dtype]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY:
        return torch.bfloat16
    return torch.float32


def load_tokenizer(base: Base) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base.

    Raises:
        ModelError: there is none, it needs code of its own, or it cannot say which characters a
            token covers (a slow tokenizer).

    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                base.path, local_files_only=True, trust_remote_code=False
            )
    except _UNREADABLE as error:
        raise _unreadable("tokenizer", base, error) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer ({type(tokenizer).__name__}) cannot say which characters a token covers",
            where=str(base.path),
            fix="the model needs a tokenizer.json",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def load_model(base: Base, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load a base as a causal language model with our attention, in evaluation mode.

    Args:
        base: what `resolve` returned.
        dtype: precision of the weights.
        device: where they go.

    Raises:
        ModelError: it is no causal language model, weights are missing, damaged or of the wrong
            shape, or they do not fit into the device's memory.

    """
    register()
    try:
        with quiet():
            config = AutoConfig.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
            _check_causal(config, base)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                base.path,
                config=config,
                dtype=dtype,
                attn_implementation=ATTENTION,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come back in the report, with their names
            )
    except ModelError:
        raise
    except _UNREADABLE as error:
        raise _unreadable("model", base, error) from error
    model: nn.Module = loaded[0]
    _check_complete(loaded[1], base)
    try:
        model.to(device)
    except torch.OutOfMemoryError as error:
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        raise ModelError(
            f"the weights ({size / 2**30:.1f} GiB) do not fit into the memory of {device}",
            where=base.name,
            fix="use a smaller model, or model.dtype: bfloat16",
        ) from error
    model.eval()
    return cast("PreTrainedModel", model)


def _check_causal(config: PreTrainedConfig, base: Base) -> None:
    """Refuse what AutoModelForCausalLM would turn into a model with an untrained head."""
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = config.architectures or []
    fits = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not fits or (named and not known.intersection(named)):
        raise ModelError(
            f"this is not a causal language model (it is {', '.join(named) or config.model_type})",
            where=base.name,
            fix="use a model that generates text, such as smollm2-135m-instruct",
        )


def _check_complete(report: dict[str, Any], base: Base) -> None:
    """Refuse weights that transformers would have filled up with random numbers."""
    for key, word in (("missing_keys", "missing"), ("mismatched_keys", "of another shape")):
        found = report.get(key) or ()
        names = sorted(name if isinstance(name, str) else str(name[0]) for name in found)
        if names:
            raise ModelError(
                f"{len(names)} weights are {word}, such as {names[0]}",
                where=str(base.path),
                fix="the files do not belong to this config.json; download the model again",
            )


def _unreadable(part: str, base: Base, error: BaseException) -> ModelError:
    text = str(error)
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in text:
        return ModelError(
            f"the {part} brings code of its own, which is never run here (trust_remote_code is off)",
            where=str(base.path),
            fix="use a model that is part of transformers",
        )
    return ModelError(f"the {part} cannot be loaded: {line}", where=str(base.path))
