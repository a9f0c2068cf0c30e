"""What a fine-tuning method is to the training loop: parameters, and what happens around a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tanzim.adapters.store import save_adapter, save_model
from tanzim.core.errors import ModelError


class Method:
    """A model prepared for training by one method. This one adds nothing to the plain loop.

    The loop calls `begin` once. In every step it calls `before_step`, computes all gradients (with
    `penalty` added to the loss once), clips them, calls `before_update`, lets the optimiser step, and
    calls `after_step` while the gradients are still there.

    Args:
        model: what is trained; its trainable parameters require gradients.
        base_hash: SHA-256 of the base model's weights, written beside what is saved.
        base_name: the base model's id.

    """

    def __init__(self, model: nn.Module, *, base_hash: str, base_name: str) -> None:
        self.model = model
        self.base_hash = base_hash
        self.base_name = base_name
        self.parameters = trainable(model)

    def begin(self, *, optimizer: Optimizer, steps_in_epoch: int, say: Callable[[int, str], None]) -> None:
        """Learn of the run, before its first step or its first one after a resume.

        Args:
            optimizer: over `parameters`, for a method that moves what its moments belong to.
            steps_in_epoch: optimiser steps of the first epoch.
            say: writes an event of a step into the run's log.

        """

    def before_step(self, step: int, total: int) -> None:
        """Prepare optimiser step number ``step`` (from 0) of ``total``."""

    def before_pass(self, documents: Sequence[Any]) -> None:
        """Look at the documents of the pass that is computed next."""

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss of a step, a scalar, or None."""
        return None

    def before_update(self, step: int, total: int) -> None:
        """Change the clipped gradients before the optimiser sees them."""

    def after_step(self, step: int, total: int) -> None:
        """Change what is trained, after the optimiser's step ``step`` (from 0)."""

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs besides the parameters, the same names at every step."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""

    def finish(self) -> str:
        """Do what remains after the last step, before the weights are saved; say it in a sentence."""
        return ""

    def save(self, folder: Path) -> None:
        """Write what was trained into ``folder``, whole or not at all."""
        model: Any = self.model
        if hasattr(model, "peft_config"):
            save_adapter(model, folder, base_hash=self.base_hash, base_name=self.base_name)
        else:
            save_model(model, folder, base_hash=self.base_hash, base_name=self.base_name)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def refuse_shards(parameters: Iterable[nn.Parameter], what: str) -> None:
    """Refuse parameters divided among ranks, for a method that needs them whole.

    Raises:
        ModelError: one is divided.

    """
    from torch.distributed.tensor import DTensor

    if any(isinstance(parameter, DTensor) for parameter in parameters):
        raise ModelError(
            f"{what} needs every rank to hold the whole model",
            where="launch.strategy",
            fix="set launch.strategy to ddp",
        )
