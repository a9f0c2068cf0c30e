"""What a run will take, before it starts: memory, disk, tokens, steps, time, and the numbers behind them.

How memory is counted, for T tokens in the largest pass (its rows are the parts of `Plan.memory`):

- weights = parameters × bytes; what is trained has float32 weights, gradients and two moments of AdamW.
- activations = T × layers × values kept per token and layer × bytes × a factor for what the allocator
  holds besides. Values kept, for hidden size d, queries q, keys k, feed-forward f:
  the model's own layers 4d + 3q + 2k + 4f; our fast layers 2d + 2q + 2k + 2f; with gradient
  checkpointing d, and a few layers at once while they are computed again.
- logits: four float32 blocks of 256 rows × vocabulary; full fine-tuning also the vocabulary's gradient.

The factors were measured on smollm2-135m-instruct (135M parameters, float32, CPU, LoRA r=16 on all
linear layers, documents of 256 tokens, resident memory of the process at its peak, in GB) and predict

  tokens of the pass             512   1,024   2,048
  own layers, measured          2.18    3.41    5.75      predicted 2.39  3.55  5.89
  fast layers                   1.68    2.17    2.97                1.64  2.07  2.92
  gradient checkpointing           -    1.92    2.37                   -  1.76  2.29
  full, without its optimiser   2.95    4.21       -                   -  4.17     -

Elsewhere they are estimates: `measured` puts what a run took next to what was said here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tanzim.adapters.config import LoraConfig
from tanzim.core.errors import PlanError
from tanzim.core.records import Json
from tanzim.core.units import size
from tanzim.train.batches import Sampler
from tanzim.train.config import TrainConfig
from tanzim.train.engine import TrainResult
from tanzim.train.machine import Machine
from tanzim.train.shapes import Shapes, shapes

OWN_LAYERS, FAST_LAYERS = 1.8, 1.2  # bytes held per byte of values kept
RECOMPUTED_LAYERS = 6  # own layers' worth that a checkpointed backward pass holds at once
LOGIT_ROWS, LOGIT_BLOCKS = 256, 4
RESERVE = 0.1  # share of free memory and disk left to others
# Share of a step's time in which the measured arithmetic is done (the rest is element-wise passes):
# 238 tokens/s of the 470 that products alone would allow, on two quiet cores.
EFFICIENCY = 0.5
STATE_BYTES = 4  # of a trained weight, its gradient, and each of AdamW's two moments


@dataclass(frozen=True, slots=True)
class Plan:
    """A prediction.

    Args:
        memory: bytes by part.
        disk: bytes by part.
        tokens: tokens of all steps; ``trained_tokens`` of them have a loss weight.
        steps: optimiser steps.
        seconds: of the whole training, evaluations included.
        tokens_per_s: of the steps alone.
        numbers: what the above was computed from.
        machine: what there is.
        changes: what could be done, and the bytes of memory it would then take.

    """

    memory: dict[str, int]
    disk: dict[str, int]
    tokens: int
    trained_tokens: int
    steps: int
    seconds: float
    tokens_per_s: float
    numbers: Json
    machine: Machine
    changes: dict[str, int]

    @property
    def peak_memory(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory.values())

    def predicted(self) -> Json:
        """Return the prediction as JSON, its keys those of `measured`."""
        return {
            "peak_memory": self.peak_memory,
            "disk": sum(self.disk.values()),
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "steps": self.steps,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s,
            "memory_parts": self.memory,
            "disk_parts": self.disk,
            "numbers": self.numbers,
            "machine": asdict(self.machine),
        }

    def check(self) -> None:
        """Refuse what cannot fit.

        Raises:
            PlanError: memory or disk does not suffice; says by how much, and which change would fit.

        """
        room = int((self.machine.memory + self.machine.held) * (1 - RESERVE))
        if self.peak_memory > room:
            fits = [f"{name} ({size(took)})" for name, took in self.changes.items() if took <= room]
            least = min(self.changes.values(), default=self.peak_memory)
            raise PlanError(
                f"training needs about {size(self.peak_memory)} of memory and {size(room)} can be used "
                f"({', '.join(f'{name} {size(took)}' for name, took in self.memory.items())})",
                where=self.machine.device,
                fix=f"any of these would fit: {'; '.join(fits)}"
                if fits
                else f"take a smaller base model: even with every change it would need {size(least)}",
            )
        disk, free = sum(self.disk.values()), int(self.machine.disk * (1 - RESERVE))
        if disk > free:
            raise PlanError(
                f"the run writes about {size(disk)} and the disk has {size(free)} that can be used",
                fix="free disk space, set runs_dir to another disk, or lower train.keep_checkpoints",
            )


def make_plan(
    model: Path,
    config: TrainConfig,
    machine: Machine,
    *,
    lengths: npt.NDArray[np.int64],
    trained: npt.NDArray[np.int64],
    validation_tokens: int,
    seed: int,
    dtype: torch.dtype,
) -> Plan:
    """Predict what training will take, from ``config.json`` and the lengths of the documents.

    Args:
        model: folder of the base model; its weights are not read.
        config: the ``train`` section.
        machine: what `machine.probe` found.
        lengths: tokens of each training document; ``trained`` of them have a loss weight.
        trained: trained tokens of each training document.
        validation_tokens: tokens of the validation set.
        seed: the run's seed, which fixes the steps.
        dtype: precision of the base weights.

    """
    sampler = Sampler(lengths, seed=seed, tokens_per_step=config.step_tokens, packing=config.packing)
    steps = sampler.total_steps(config.epochs, config.max_steps)
    chosen = _documents(sampler, steps)
    sizes = shapes(model, config.method)
    largest = _largest_pass(config, lengths)
    memory = _memory(sizes, config, machine, largest, dtype)
    tokens, trained_tokens = int(lengths[chosen].sum()), int(trained[chosen].sum())
    forward, backward = _flops(sizes, config, trained_tokens / max(1, tokens))
    tokens_per_s = machine.flops * EFFICIENCY / (forward + backward)
    every = config.eval_steps or max(1, steps // 10)
    evaluations = -(-steps // every) if validation_tokens else 0
    checkpoint = sizes.trained * 3 * STATE_BYTES
    wide = torch.finfo(dtype).bits // 8
    return Plan(
        memory=memory,
        disk={
            # The latest, the best, and one being written before an older one goes.
            "checkpoints": checkpoint * (min(config.keep_checkpoints, steps) + 2),
            "output": sizes.trained * STATE_BYTES
            if isinstance(config.method, LoraConfig)
            else sizes.parameters * wide,
        },
        tokens=tokens,
        trained_tokens=trained_tokens,
        steps=steps,
        seconds=tokens / tokens_per_s
        + evaluations * validation_tokens * forward / (machine.flops * EFFICIENCY),
        tokens_per_s=tokens_per_s,
        numbers=asdict(sizes)
        | {
            "bytes_per_weight": wide,
            "tokens_in_largest_pass": largest,
            "evaluations": evaluations,
            "flops_per_token": forward + backward,
            "merged_export_bytes": sizes.parameters * wide,
        }
        | {key: value for key, value in sampler.fill(config.tokens_per_pass).items() if "fill" in key},
        machine=machine,
        changes=_changes(model, sizes, config, machine, lengths, dtype),
    )


def measured(result: TrainResult) -> Json:
    """Return what a run took, under the keys of `Plan.predicted`."""
    files = [*result.output.parent.glob("checkpoints/*/*"), *result.output.glob("*")]
    return {
        "peak_memory": result.peak_memory,
        "disk": sum(file.stat().st_size for file in files if file.is_file()),
        "tokens": result.tokens,
        "trained_tokens": result.trained_tokens,
        "steps": result.step,
        "seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
    }


def _documents(sampler: Sampler, steps: int) -> list[int]:
    """Return the documents of the first ``steps`` steps, over as many epochs as they take."""
    chosen: list[int] = []
    epoch = 0
    while steps > 0:
        taken = sampler.steps(epoch)[:steps]
        chosen += [document for step in taken for document in step]
        steps -= len(taken)
        epoch += 1
    return chosen


def _largest_pass(config: TrainConfig, lengths: npt.NDArray[np.int64]) -> int:
    longest = int(lengths.max())
    return max(longest, min(config.tokens_per_pass, int(lengths.sum()))) if config.packing else longest


def _memory(
    sizes: Shapes, config: TrainConfig, machine: Machine, tokens: int, dtype: torch.dtype
) -> dict[str, int]:
    """Return the bytes of each part at the peak of a step (the formulas stand at the top of this file)."""
    wide = torch.finfo(dtype).bits // 8
    lora = isinstance(config.method, LoraConfig)
    d, q, k, f = sizes.hidden, sizes.queries, sizes.keys, sizes.inner
    own = (4 * d + 3 * q + 2 * k + 4 * f) * OWN_LAYERS
    fast = (2 * d + 2 * q + 2 * k + 2 * f) * FAST_LAYERS
    takes_fast = sizes.fast and lora and config.method.dropout == 0 and wide == 4 and machine.device == "cpu"  # type: ignore[union-attr]
    kept = sizes.layers * (fast if takes_fast else own)
    if config.gradient_checkpointing:
        kept = sizes.layers * d + RECOMPUTED_LAYERS * own
    logits = LOGIT_ROWS * sizes.vocabulary * 4 * LOGIT_BLOCKS
    return {
        "runtime": machine.held,
        "weights": sizes.parameters * wide + (sizes.trained * STATE_BYTES if lora else 0),
        "gradients": sizes.trained * (STATE_BYTES if lora else wide),
        "optimiser": sizes.trained * 2 * (STATE_BYTES if lora else wide),
        "activations": int(tokens * kept * wide),
        "logits": logits + (0 if lora else sizes.vocabulary * d * 4),
    }


def _flops(sizes: Shapes, config: TrainConfig, trained_share: float) -> tuple[float, float]:
    """Return the floating-point operations of a token's forward and backward pass.

    A weight costs two operations forward, two for the gradient of its input, and, if it is itself
    trained, two for its own (Kaplan et al. 2020, arXiv:2001.08361). Logits are made for trained tokens.
    """
    vocabulary = 2 * sizes.vocabulary * sizes.hidden * trained_share
    forward = 2.0 * sizes.linear + vocabulary
    backward = 2.0 * sizes.linear + vocabulary
    backward += 2.0 * (sizes.linear if config.method.type == "full" else 3 * sizes.trained)
    if config.method.type == "full":
        backward += vocabulary
    if config.gradient_checkpointing:
        backward += 2.0 * sizes.linear
    return forward, backward


def _changes(
    model: Path,
    sizes: Shapes,
    config: TrainConfig,
    machine: Machine,
    lengths: npt.NDArray[np.int64],
    dtype: torch.dtype,
) -> dict[str, int]:
    """Return what each change that is open to the user would take; the last is all of them together."""
    every: dict[str, Any] = {}
    changes: dict[str, int] = {}

    def needed(update: dict[str, Any], dtype: torch.dtype = dtype) -> int:
        changed = config.model_copy(update=update)
        changed_sizes = shapes(model, changed.method) if "method" in update else sizes
        largest = _largest_pass(changed, lengths)
        return sum(_memory(changed_sizes, changed, machine, largest, dtype).values())

    longest, smaller = int(lengths.max()), config.tokens_per_pass
    while config.packing and smaller > longest:
        smaller = max(longest, smaller // 2)
        every["tokens_per_pass"] = smaller
        changes[f"train.tokens_per_pass={smaller}"] = needed({"tokens_per_pass": smaller})
    if not config.gradient_checkpointing:
        every["gradient_checkpointing"] = True
        changes["train.gradient_checkpointing=true"] = needed({"gradient_checkpointing": True})
    if not isinstance(config.method, LoraConfig):
        every["method"] = LoraConfig()
        changes["train.method.type=lora"] = needed({"method": LoraConfig()})
    narrow = dtype
    if torch.finfo(dtype).bits > 16:
        narrow = torch.bfloat16
        changes["model.dtype=bfloat16"] = needed({}, narrow)
    if len(every) + (narrow != dtype) > 1:
        names = [_words(key, value) for key, value in every.items()]
        names += ["model.dtype=bfloat16"] if narrow != dtype else []
        changes[" with ".join(names)] = needed(every, narrow)
    return changes


def _words(key: str, value: Any) -> str:  # noqa: ANN401 - a config value
    return "train.method.type=lora" if key == "method" else f"train.{key}={str(value).lower()}"
