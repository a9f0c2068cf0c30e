"""What a finished job leaves: its models, and a table of its metrics."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from sqlalchemy import RowMapping

from tanzim.core.records import Json
from tanzim.core.run import read_lines
from tanzim.serve.jobs.process import EVENTS

_COLUMNS = ("step", "train_loss", "valid_loss")


def result_table(folder: Path) -> Path:
    """Write ``step_metrics.csv``, one row per step, as OpenAI's result files have it; return its path."""
    path = folder / "step_metrics.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS)
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in sorted(_losses(folder).items()))
    return path


def models_of(job: RowMapping, folder: Path, outcome: Json) -> list[Json]:
    """Return the rows of the models that a job made, its result first.

    Args:
        job: the job.
        folder: its folder, in the server's folder ``jobs``.
        outcome: adapter (a path inside ``folder``) and step of the chosen weights, train_loss, valid_loss;
            epochs: adapter and step of the weights as they were after each of the last epochs.

    """
    name = f"ft:{job['model']}:{job['project']}:{job['suffix'] or ''}:{job['id'].removeprefix('ftjob-')[:8]}"
    losses = _losses(folder)
    chosen = {key: outcome[key] for key in ("train_loss", "valid_loss") if outcome.get(key) is not None}
    made = [_row(name, folder, outcome, chosen)]
    for epoch in outcome.get("epochs", ()):
        made.append(_row(f"{name}:ckpt-step-{epoch['step']}", folder, epoch, losses[epoch["step"]]))
    return made


def _row(name: str, folder: Path, made: Json, losses: Json) -> Json:
    adapter = (Path("jobs") / folder.name / made["adapter"]).as_posix()  # from the server's folder
    return {"id": name, "adapter": adapter, "step": made["step"], "metrics": losses | {"step": made["step"]}}


def _losses(folder: Path) -> dict[int, Json]:
    """Return the losses of each step that has any: train_loss, valid_loss."""
    found: dict[int, Json] = defaultdict(dict)
    for line in read_lines(folder / EVENTS):
        if line["kind"] in ("train", "eval"):
            found[line["step"]]["train_loss" if line["kind"] == "train" else "valid_loss"] = line["loss"]
    return found
