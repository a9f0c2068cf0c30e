"""One step of stage 1 on a file: read, run, write rows that read back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.powers import Powers
from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.data.apply import apply_step, step_config
from tanzim.data.config import DataConfig
from tanzim.data.describe.rows import write_rows
from tanzim.data.executor import Local
from tanzim.data.ingest.dataset import read_data
from tanzim.data.ledger import StepReport
from tanzim.pipeline.powers import open_powers


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step did to a file.

    Args:
        report: the counts.
        removed: what was taken out, with the reason.
        output: the file of rows that came out; None if none was asked for.

    """

    report: StepReport
    removed: list[Json]
    output: Path | None


def data_step(
    file: str | Sequence[str],
    step: Mapping[str, Any],
    *,
    output: str | None = None,
    powers: Powers | None = None,
    reporter: Reporter | None = None,
) -> Stepped:
    """Run one step of data preparation on files, without a config or a run.

    Args:
        file: data file, folder, glob, URL or Hugging Face dataset id; or several.
        step: its settings, such as ``{"type": "dedup_fuzzy", "threshold": 0.8}``.
        output: JSON Lines to write what comes out to.
        powers: callables that some steps need; None opens what the settings name.
        reporter: takes the progress.

    Raises:
        ConfigError: there is no such step, or it has no such setting.
        DataError: the data cannot be read.

    """
    reporter, config = reporter or Reporter(), step_config(step)
    data = DataConfig(path=[file] if isinstance(file, str) else list(file))
    with tempfile.TemporaryDirectory(prefix="tanzim-step-") as folder, reporter.task(config.type) as progress:
        reading = read_data(data, Path(folder), Path(folder), Local(), progress)
        top = "; ".join(f"{reason} ({count})" for reason, count in reading.faults.most_common(3))
        if not reading.dataset.rows:
            raise DataError(f"there is no row that can be used{f': {top}' if top else ''}", where=str(file))
        applied = apply_step(reading.dataset, config, powers=powers or open_powers(), progress=progress)
        if top:
            reporter.say(f"{reading.faults.total()} rows cannot be read: {top}")
    written = Path(output) if output else None
    if written is not None:
        write_rows(written, applied.examples)
    return Stepped(applied.report, applied.removed, written)
