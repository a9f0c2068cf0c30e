"""Out of memory: go on with smaller passes at a constant number of tokens per step."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from tanzim.adapters.soft_prompts import learns_keys, virtual_tokens
from tanzim.core.errors import ConfigError, TrainError
from tanzim.train.batches import Batch

OFFLOADED_FROM = ("cuda",)  # kinds of device that have a memory of their own to free
_CPU_MESSAGES = ("not enough memory", "DefaultCPUAllocator", "out of memory")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether ``error`` is an allocator's, of any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(message in str(error) for message in _CPU_MESSAGES)


def smaller_pass(batch: Batch | None, tokens_per_pass: int) -> int:
    """Return the next size to try after ``batch`` did not fit.

    Raises:
        TrainError: it was a single document, which cannot be divided.

    """
    if batch is None or len(batch.documents) == 1:
        where = str(batch.documents[0].provenance) if batch else None
        tokens = f"a single document of {batch.tokens} tokens" if batch else "the training state"
        raise TrainError(
            f"memory ran out on {tokens}, which cannot be made smaller",
            where=where,
            fix="set train.gradient_checkpointing to true, lower model.max_length, "
            "or take a smaller base model",
        )
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(1, min(tokens_per_pass, batch.tokens) // 2)


def recompute_activations(model: Any, *, offload: bool = False) -> None:  # noqa: ANN401 - any model
    """Let the backward pass compute each layer again (Chen et al. 2016, arXiv:1604.06174).

    Args:
        model: a transformers or PEFT model.
        offload: keep what the layers start from in main memory meanwhile.

    Raises:
        TrainError: the model cannot.
        ConfigError: nothing can be offloaded from its device.

    """
    if isinstance(model, PeftModel) and virtual_tokens(model) and learns_keys(model):
        # transformers drops a cache where it recomputes, and the learnt keys and values with it.
        raise TrainError(
            "activations cannot be recomputed under prefix tuning: the learnt keys and values would be lost",
            where="train.gradient_checkpointing",
            fix="set it to false, or use train.method.type=prompt",
        )
    # Transformers before 5.23 knows it by its older name alone.
    name = "activation_checkpointing_enable"
    enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise TrainError(str(error), fix="set train.gradient_checkpointing to false") from error
    if offload:
        _offload_inputs(model)


def _offload_inputs(model: Any) -> None:  # noqa: ANN401 - a transformers or PEFT model
    """Keep what recomputed layers start from in pinned main memory until the backward pass needs it.

    A recomputed layer leaves nothing behind but its input, [T, D] numbers. They go out as the forward pass
    makes them and come back layer by layer (Rajbhandari et al. 2021, arXiv:2104.07857). The copies run in
    the stream of the computation: nothing to synchronise, and nothing overlaps.
    """
    device = next(model.parameters()).device
    if device.type not in OFFLOADED_FROM:
        raise ConfigError(
            "train.offload_activations moves activations from a CUDA device to main memory; the model is on "
            f"{device.type}",
            where="train.offload_activations",
            fix="set it to false",
        )
    for module in model.modules():
        checkpoint = getattr(module, "_gradient_checkpointing_func", None)
        if checkpoint is not None:
            module._gradient_checkpointing_func = partial(_offloaded, checkpoint)


def _offloaded(checkpoint: Callable[..., Any], layer: Callable[..., Any], *inputs: Tensor) -> Any:  # noqa: ANN401
    """Run a recomputed layer; autograd keeps its inputs, and nothing else, by these hooks."""
    with save_on_cpu(pin_memory=True):
        return checkpoint(layer, *inputs)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes this process has held: on the GPU, or resident in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
