"""What a run will take, before it starts: memory, disk, tokens, steps, time, and the numbers behind them.

How memory is counted, for T tokens in the largest pass (its rows are the parts of `Plan.memory`):

- runtime: what Python and torch hold already, and what they add in the first steps.
- weights, gradients, optimiser: their tensors, whatever the method and the optimiser keep.
- activations: what the forward pass keeps for the backward pass, and what is alive besides at the peak.
- logits: the rows of the vocabulary that are projected at once.

Tensors are counted in a rehearsal on small models (`rehearsal`). On the CPU the allocator keeps holes
between them: SPREAD. With WARM_UP it was fitted on the measured peaks that docs/performance.md lists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tanzim.adapters.config import LoraConfig, PrefixConfig, form
from tanzim.core.errors import PlanError
from tanzim.core.records import Json
from tanzim.core.units import size
from tanzim.train.balanced import make_sampler
from tanzim.train.batches import Sampler
from tanzim.train.config import TrainConfig
from tanzim.train.engine import TrainResult
from tanzim.train.machine import Machine
from tanzim.train.rehearsal import Rehearsed
from tanzim.train.shapes import Shapes

WARM_UP = 120_000_000  # bytes: kernels, threads, lazily imported code
SPREAD = 1.25  # bytes resident on the CPU per byte of tensors alive besides the weights
RESERVE = 0.1  # share of free memory and disk left to others
# Share of a step's time in which the measured arithmetic is done (the rest is element-wise passes):
# 238 tokens/s of the 470 that products alone would allow, on two quiet cores.
EFFICIENCY = 0.5
GRADIENT_BYTES = 4  # of a trained weight
# Methods of updating that never hold all gradients together.
WITHOUT_GRADIENTS = ("lomo", "mezo")


# Makes the small steps of a config, with base weights in a precision.
Rehearse = Callable[[TrainConfig, torch.dtype], Rehearsed]


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
        changes: where it does not fit, what could be done, and the bytes of memory it would then take.

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


def make_plan(  # noqa: PLR0913 - what a run depends on
    sizes: Shapes,
    rehearse: Rehearse,
    config: TrainConfig,
    machine: Machine,
    *,
    lengths: npt.NDArray[np.int64],
    trained: npt.NDArray[np.int64],
    validation_tokens: int,
    seed: int,
    dtype: torch.dtype,
    classes: npt.NDArray[np.int64] | None = None,
) -> Plan:
    """Predict what training will take, from the model's sizes and the lengths of the documents.

    Args:
        sizes: of the base model.
        rehearse: makes the small steps whose tensors are counted.
        config: the ``train`` section.
        machine: what `machine.probe` found.
        lengths: tokens of each training document; ``trained`` of them have a loss weight.
        trained: trained tokens of each training document.
        validation_tokens: tokens of the validation set.
        seed: the run's seed, which fixes the steps.
        dtype: precision of the base weights.
        classes: class of each training document, where batches are balanced.

    """
    sampler = make_sampler(lengths, config, seed=seed, classes=classes)
    steps = sampler.total_steps(config.epochs, config.max_steps)
    chosen = _documents(sampler, steps)
    tokens, trained_tokens = int(lengths[chosen].sum()), int(trained[chosen].sum())
    share = trained_tokens / max(1, tokens)
    needs = _Needs(sizes, rehearse, machine, lengths, share)
    memory, found = needs.memory(config, dtype), needs.rehearsed(config, dtype)
    forward, backward = _flops(sizes, config, found.trained.at(sizes.layers, sizes.vocabulary), share)
    tokens_per_s = machine.flops * EFFICIENCY / (forward + backward)
    every = config.eval_steps or max(1, steps // 10)
    evaluations = -(-steps // every) if validation_tokens else 0
    room = int((machine.memory + machine.held) * (1 - RESERVE))
    return Plan(
        memory=memory,
        disk={
            # The latest, the best, and one being written before an older one goes.
            "checkpoints": found.checkpoint.at(sizes.layers, sizes.vocabulary)
            * (min(config.keep_checkpoints, steps) + 2),
            "output": found.output.at(sizes.layers, sizes.vocabulary),
        },
        tokens=tokens,
        trained_tokens=trained_tokens,
        steps=steps,
        seconds=tokens / tokens_per_s
        + evaluations * validation_tokens * forward / (machine.flops * EFFICIENCY),
        tokens_per_s=tokens_per_s,
        numbers=asdict(sizes)
        | {
            "trained": found.trained.at(sizes.layers, sizes.vocabulary),
            "bytes_per_weight": torch.finfo(dtype).bits // 8,
            "tokens_in_largest_pass": _largest_pass(config, lengths),
            "evaluations": evaluations,
            "flops_per_token": forward + backward,
            "merged_export_bytes": sizes.parameters * (torch.finfo(dtype).bits // 8),
        }
        | {key: value for key, value in sampler.fill(config.tokens_per_pass).items() if "fill" in key},
        machine=machine,
        changes=needs.changes(config, dtype) if sum(memory.values()) > room else {},
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
    return max(longest, min(config.tokens_per_pass, int(lengths.sum()))) if _packs(config) else longest


def _packs(config: TrainConfig) -> bool:
    """Tell whether a pass holds several documents: learnt keys and values stand before one alone."""
    return config.packing and not isinstance(config.method, PrefixConfig)


class _Needs:
    """The memory of a run, as it is and as it could be.

    Args:
        sizes: of the base model.
        rehearse: makes the small steps.
        machine: where the run is to be.
        lengths: tokens of each document.
        share: share of trained tokens.

    """

    def __init__(
        self,
        sizes: Shapes,
        rehearse: Rehearse,
        machine: Machine,
        lengths: npt.NDArray[np.int64],
        share: float,
    ) -> None:
        self.sizes, self.machine, self.lengths, self.share = sizes, machine, lengths, share
        self._rehearse = rehearse
        self._found: dict[str, Rehearsed] = {}

    def rehearsed(self, config: TrainConfig, dtype: torch.dtype) -> Rehearsed:
        """Return the rehearsal of a config; passes of another size need no other one."""
        key = f"{dtype}{config.model_dump_json(exclude={'tokens_per_pass', 'tokens_per_step'})}"
        if key not in self._found:
            self._found[key] = self._rehearse(config, dtype)
        return self._found[key]

    def memory(self, config: TrainConfig, dtype: torch.dtype) -> dict[str, int]:
        """Return the bytes of each part at the peak of a step."""
        found, sizes = self.rehearsed(config, dtype), self.sizes
        grown = sizes.layers, sizes.vocabulary
        trained = found.trained.at(*grown) * GRADIENT_BYTES
        tokens = _largest_pass(config, self.lengths)
        logits, rest = found.peak(sizes.layers, tokens, sizes.vocabulary, self.share)
        optimiser = min(rest, max(0, found.checkpoint.at(*grown) - trained))
        gradients = 0 if config.optimizer.type in WITHOUT_GRADIENTS else min(trained, rest - optimiser)
        parts = {
            "optimiser": optimiser,
            "gradients": gradients,
            "activations": rest - optimiser - gradients,
            "logits": logits,
        }
        cpu = self.machine.device == "cpu"
        spread, warm_up = (SPREAD, WARM_UP) if cpu else (1.0, 0)
        return {
            "runtime": self.machine.held + warm_up,
            "weights": found.stored.at(*grown),
            **{name: round(size * spread) for name, size in parts.items()},
        }

    def changes(self, config: TrainConfig, dtype: torch.dtype) -> dict[str, int]:
        """Return what each change that is open to the user would take; the last is all of them together."""
        every: dict[str, Any] = {}
        changes: dict[str, int] = {}

        def needed(update: dict[str, Any], dtype: torch.dtype = dtype) -> int:
            return sum(self.memory(config.model_copy(update=update), dtype).values())

        longest, smaller = int(self.lengths.max()), config.tokens_per_pass
        while _packs(config) and smaller > longest:
            smaller = max(longest, smaller // 2)
            every["tokens_per_pass"] = smaller
            changes[f"train.tokens_per_pass={smaller}"] = needed({"tokens_per_pass": smaller})
        if not config.gradient_checkpointing:
            every["gradient_checkpointing"] = True
            changes["train.gradient_checkpointing=true"] = needed({"gradient_checkpointing": True})
        if form(config.method) == "model":
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


def _flops(sizes: Shapes, config: TrainConfig, trained: int, trained_share: float) -> tuple[float, float]:
    """Return the floating-point operations of a token's forward and backward pass.

    A weight costs two operations forward, two for the gradient of its input, and, if it is itself
    trained, two for its own (Kaplan et al. 2020, arXiv:2001.08361). Logits are made for trained tokens.
    """
    vocabulary = 2 * sizes.vocabulary * sizes.hidden * trained_share
    forward = 2.0 * sizes.linear + vocabulary
    backward = 2.0 * sizes.linear + vocabulary
    whole = form(config.method) == "model"
    backward += 2.0 * (min(trained, sizes.linear) if whole else 3 * trained)
    if whole and trained > sizes.linear:
        backward += vocabulary
    if config.gradient_checkpointing:
        backward += 2.0 * sizes.linear
    return forward, backward


def _words(key: str, value: Any) -> str:  # noqa: ANN401 - a config value
    return "train.method.type=lora" if key == "method" else f"train.{key}={str(value).lower()}"
