"""Where metrics go besides ``metrics.jsonl``: one small class per tracker, chosen by name.

None sends anything off the machine by itself: W&B writes offline runs unless WANDB_MODE says
otherwise, MLflow writes to the run's folder unless MLFLOW_TRACKING_URI does, Trackio is local.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.core.run import RunFolder


class Tracker(Protocol):
    """Something that draws curves."""

    def log(self, line: Json) -> None:
        """Take the numbers of one train or eval line."""

    def close(self) -> None:
        """Write out what is left."""


class TensorBoard:
    """Event files in ``<run>/tensorboard`` (scalars named ``kind/number``)."""

    def __init__(self, folder: RunFolder, config: Json, first_step: int) -> None:
        need("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what an interrupted run wrote after its last checkpoint.
        self.writer: Any = SummaryWriter(str(folder.path / "tensorboard"), purge_step=first_step)
        if first_step == 1:
            self.writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, line: Json) -> None:
        """Add a scalar for each number."""
        for name, value in _numbers(line):
            self.writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush the event file."""
        self.writer.close()


class MLflow:
    """An MLflow run; its store is ``<run>/mlflow.db`` unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, folder: RunFolder, config: Json, first_step: int) -> None:
        self.mlflow: Any = need("mlflow", "mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            self.mlflow.set_tracking_uri(f"sqlite:///{folder.path.resolve() / 'mlflow.db'}")
        self.mlflow.set_experiment("tanzim")
        self.mlflow.start_run(run_name=folder.name)
        self.mlflow.log_params({key: str(value)[:500] for key, value in config.items()})
        self.mlflow.log_param("first_step", first_step)

    def log(self, line: Json) -> None:
        """Log each number."""
        self.mlflow.log_metrics(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


class Wandb:
    """A Weights & Biases run, offline unless WANDB_MODE says otherwise."""

    def __init__(self, folder: RunFolder, config: Json, first_step: int) -> None:
        self.run: Any = need("wandb", "wandb").init(
            project="tanzim",
            name=folder.name,
            dir=str(folder.path),
            config={**config, "first_step": first_step},
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, line: Json) -> None:
        """Log each number."""
        self.run.log(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class Trackio:
    """A Trackio run in its local store."""

    def __init__(self, folder: RunFolder, config: Json, first_step: int) -> None:
        self.run: Any = need("trackio", "trackio").init(
            project="tanzim", name=folder.name, config={**config, "first_step": first_step}
        )

    def log(self, line: Json) -> None:
        """Log each number."""
        self.run.log(dict(_numbers(line)), step=line["step"])

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


TRACKERS: dict[str, Callable[[RunFolder, Json, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": Wandb,
    "trackio": Trackio,
}


def check_trackers(names: Sequence[str]) -> None:
    """Import the packages of all trackers asked for, so that a missing one is said before long work.

    Raises:
        MissingExtra: one is not installed.

    """
    for name in names:
        need(name, name)


def open_trackers(names: Sequence[str], folder: RunFolder, config: Json, first_step: int) -> list[Tracker]:
    """Start the trackers called ``names`` for the run in ``folder``."""
    return [TRACKERS[name](folder, config, first_step) for name in names]


def _numbers(line: Json) -> Iterator[tuple[str, float]]:
    for key, value in line.items():
        if key not in ("step", "kind") and isinstance(value, int | float):
            yield f"{line['kind']}/{key}", float(value)
