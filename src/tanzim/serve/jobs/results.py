"""What a finished job leaves: its models, and a table of its metrics."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

from tanzim.core.records import Json
from tanzim.core.run import read_lines
from tanzim.serve.jobs.process import EVENTS

_COLUMNS = ("step", "train_loss", "valid_loss")


def result_table(folder: Path) -> Path:
    """Write ``step_metrics.csv``, one row per step, as OpenAI's result files have it; return its path."""
    rows: dict[int, dict[str, Any]] = defaultdict(dict)
    for line in read_lines(folder / EVENTS):
        if line["kind"] in ("train", "eval"):
            column = "train_loss" if line["kind"] == "train" else "valid_loss"
            rows[line["step"]] |= {"step": line["step"], column: line["loss"]}
    path = folder / "step_metrics.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS)
        writer.writeheader()
        writer.writerows(row for _, row in sorted(rows.items()))
    return path


def models_of(job: RowMapping, folder: Path, outcome: Json) -> list[Json]:
    """Return the rows of the models that a job made, its result first.

    Args:
        job: the job.
        folder: its folder, in the server's folder ``jobs``.
        outcome: adapter (a path inside ``folder``), step, train_loss, valid_loss.

    """
    name = f"ft:{job['model']}:{job['project']}:{job['suffix'] or ''}:{job['id'].removeprefix('ftjob-')[:8]}"
    metrics = {key: outcome[key] for key in ("train_loss", "valid_loss") if outcome.get(key) is not None}
    adapter = (Path("jobs") / folder.name / outcome["adapter"]).as_posix()  # from the server's folder
    step = outcome["step"]
    return [{"id": name, "adapter": adapter, "step": step, "metrics": metrics | {"step": step}}]
