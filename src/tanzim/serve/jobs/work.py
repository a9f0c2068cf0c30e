"""What the server needs of higher rooms to run a job: how it is configured, and what command runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tanzim.core.records import Json


@dataclass(frozen=True, slots=True)
class Order:
    """What a client wants trained.

    Args:
        name: of the job.
        model: the base model's name.
        seed: of everything random.
        hyperparameters: n_epochs, batch_size, learning_rate_multiplier; each a number or "auto".
        settings: keys of the ``train`` section that the client sets besides.
        validation: whether there is a validation file.

    """

    name: str
    model: str
    seed: int
    hyperparameters: Mapping[str, float | str] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
    validation: bool = False


class Workshop(Protocol):
    """Makes a job's folder ready, and names the command that works on it."""

    def check(self, order: Order) -> None:
        """Refuse what can never be trained, before it is queued.

        Raises:
            ConfigError: a value is wrong; ``where`` names it.

        """

    def furnish(self, order: Order, folder: Path) -> None:
        """Write what the command needs into ``folder``, where ``training.jsonl`` lies already."""

    def command(self, folder: Path, lease: float | None) -> list[str]:
        """Return the command that trains; run again after an interruption, it goes on.

        Args:
            folder: of the job.
            lease: seconds of the lease on the folder that it holds while it works; None: it needs none.

        """
