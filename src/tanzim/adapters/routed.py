"""Several tasks at once, one LoRA adapter each: every token of a packed row goes through its own task's.

y = x·Wᵀ + s·(x·Aₖᵀ)·Bₖᵀ for the rows of task k (Hu et al. 2021, arXiv:2106.09685; many adapters over one
shared product as in S-LoRA, Sheng et al. 2023, arXiv:2311.03285). The base is read once for all tasks, and
an adapter's gradient is what its own documents alone would give. Prefer it to separate runs where tasks
have little data each: the passes are full, and the weights are loaded once.

A document's task is told by the file it came from. Legend: T rows (tokens), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import peft
import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from tanzim.adapters.config import RoutedConfig
from tanzim.adapters.heads import task_settings
from tanzim.adapters.linear import wrap
from tanzim.adapters.lora import targets, transposed, whole
from tanzim.adapters.method import Method
from tanzim.adapters.store import save_adapter
from tanzim.core.errors import ModelError
from tanzim.core.files import write_json
from tanzim.core.records import Provenance
from tanzim.core.seeds import derive


class Sourced(Protocol):
    """A document, as far as routing looks at it."""

    ids: Any
    provenance: Provenance


@dataclass
class Route:
    """Which rows go through which adapter in the pass at hand.

    Args:
        rows: task → numbers of its rows; None before the first pass: no adapter anywhere.
        only: a task that all rows go through, whatever ``rows`` says.

    """

    rows: Mapping[str, Tensor] | None = None
    only: str | None = None


class RoutedLinear(PeftLinear):
    """peft's LoRA layer with several adapters, of which each row takes its own."""

    route: Route

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - peft's signature
        """Apply the layer to x [..., I]."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.route.only is not None:
            return result + self._update(x, self.route.only).to(result.dtype)
        if self.route.rows is None:
            return result
        x_TI, y_TO = x.reshape(-1, x.shape[-1]), result.reshape(-1, result.shape[-1])
        for task, rows in self.route.rows.items():
            y_TO = y_TO.index_add(0, rows, self._update(x_TI[rows], task).to(y_TO.dtype))
        return y_TO.view(result.shape)

    def _update(self, x_TI: Tensor, task: str) -> Tensor:
        a: Any = self.lora_A[task]
        b: Any = self.lora_B[task]
        update: Tensor = b(a(self.lora_dropout[task](x_TI.to(a.weight.dtype)))) * self.scaling[task]
        return update


class Routed(Method):
    """A model with one adapter per task.

    Args:
        model: the PEFT model with all of them.
        tasks: task → where its documents come from.
        route: what the layers look at.
        base_hash: SHA-256 of the base model's weights.
        base_name: the base model's id.

    """

    def __init__(
        self, model: nn.Module, tasks: Mapping[str, str], route: Route, *, base_hash: str, base_name: str
    ) -> None:
        super().__init__(model, base_hash=base_hash, base_name=base_name)
        self.tasks = tasks
        self.route = route

    def before_pass(self, documents: Sequence[Sourced]) -> None:
        """Send each document's rows through its task's adapter."""
        device = next(self.model.parameters()).device
        rows: dict[str, list[np.ndarray[Any, Any]]] = {}
        start = 0
        for document in documents:
            # Documents of no task (the pipeline lets none into a run) take the first adapter.
            task = task_of_source(document.provenance.source, self.tasks) or next(iter(self.tasks))
            rows.setdefault(task, []).append(np.arange(start, start + len(document.ids)))
            start += len(document.ids)
        self.route.rows = {
            task: torch.from_numpy(np.concatenate(parts)).to(device) for task, parts in rows.items()
        }

    def save(self, folder: Path) -> None:
        """Write every task's adapter into a folder of its own, PEFT layout."""
        model: Any = self.model
        before = model.active_adapter
        try:
            for task in self.tasks:
                model.active_adapter = task
                save_adapter(model, folder / task, base_hash=self.base_hash, base_name=self.base_name)
        finally:
            model.active_adapter = before
        record = {"base": self.base_name, "base_hash": self.base_hash, "tasks": dict(self.tasks)}
        write_json(folder / "tanzim.json", record)


def attach(
    model: PreTrainedModel, config: RoutedConfig, *, seed: int, base_hash: str, base_name: str
) -> Method:
    """Put one adapter per task on ``model``; each starts as it would alone.

    Raises:
        ModelError: a named layer does not exist, or cannot be routed.

    """

    def settings() -> peft.LoraConfig:
        return peft.LoraConfig(
            **task_settings(model),
            r=config.rank,
            lora_alpha=whole(config.alpha),  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            target_modules=targets(model, config.target_modules),
            fan_in_fan_out=transposed(model),
        )

    if transposed(model):
        raise ModelError(
            "GPT-2's layers cannot be routed", where="train.method", fix="use another base model"
        )
    wanted = settings()
    adapted: Any = None
    for task in config.tasks:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "lora"))
            if adapted is None:
                adapted = wrap(model, wanted, task)
            else:
                adapted.add_adapter(task, settings_like(wanted))
    route = Route()
    layers: list[Any] = [layer for layer in adapted.modules() if isinstance(layer, BaseTunerLayer)]
    for module in layers:
        if not (isinstance(module, PeftLinear) and type(module.base_layer) is nn.Linear):
            raise ModelError(
                f"{type(module).__name__} cannot be routed",
                where="train.method.target_modules",
                fix="name linear layers only",
            )
        module.__class__ = RoutedLinear
        setattr(module, "route", route)  # noqa: B010 - mypy takes it for a tensor
        # With several active at once, no fast path takes the layer for plain LoRA.
        module._active_adapter = list(config.tasks)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return Routed(adapted, config.tasks, route, base_hash=base_hash, base_name=base_name)


def use_only(model: nn.Module, task: str) -> None:
    """Let all rows go through one task's adapter from now on."""
    for module in model.modules():
        if isinstance(module, RoutedLinear):
            module.route.only = task


def settings_like(settings: peft.LoraConfig) -> peft.LoraConfig:
    """Return the same settings for another adapter: peft resolves ``all-linear`` in the first."""
    return peft.LoraConfig(
        task_type=settings.task_type,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.target_modules,
    )


def task_of_source(source: str, tasks: Mapping[str, str]) -> str | None:
    """Return the task whose file, folder or pattern a document came from; None for none of them."""
    for task, place in tasks.items():
        if source == place or fnmatch(source, place) or source.startswith(place.rstrip("/") + "/"):
            return task
    return None
