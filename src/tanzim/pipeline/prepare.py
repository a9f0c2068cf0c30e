"""Stage 1 of a run: look at data files, and turn them into examples on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.files import write_json
from tanzim.core.progress import Reporter
from tanzim.data.cache import STEPS
from tanzim.data.config import DataConfig
from tanzim.data.inspect import Inspection, inspect
from tanzim.data.prepare import DataReport, prepare
from tanzim.pipeline.baseline import baseline
from tanzim.pipeline.config import Config
from tanzim.pipeline.data_page import write_data_page
from tanzim.pipeline.powers import open_powers
from tanzim.pipeline.workspace import open_run


def inspect_data(file: str | Sequence[str], *, config: DataConfig | None = None) -> Inspection:
    """Say what the data in ``file`` is, why, how long, in which languages, and what is wrong with it.

    Args:
        file: data file, folder, glob or Hugging Face dataset id; or several.
        config: how to read it, where the defaults are wrong.

    Raises:
        DataError: the data cannot be read or recognised.
    """
    paths = [file] if isinstance(file, str) else list(file)
    return inspect(paths, config or DataConfig(path=paths))


def prepare_data(config: Config, *, overwrite: bool = False, reporter: Reporter | None = None) -> DataReport:
    """Read, recognise, convert and split the data of ``config`` into its run directory (once).

    Args:
        config: the project.
        overwrite: delete an existing run of that name first.
        reporter: takes what was recognised, and the progress.

    Raises:
        DataError: no data is named, or too many rows cannot be used.
    """
    reporter = reporter or Reporter()
    folder = open_run(config, overwrite=overwrite)
    if (folder.data / "report.json").is_file():
        return DataReport.read(folder.data)
    if not config.data.path and not config.data.sources:
        raise DataError(
            "no data is named", where="data.path", fix="tanzim init FILE writes a config for a file"
        )
    with reporter.task("preparing data") as progress:
        report = prepare(
            config.data,
            folder.data,
            seed=config.seed,
            cache=Path(config.runs_dir) / STEPS,
            powers=open_powers(),
            progress=progress,
        )
    reporter.choose("data.format", report.format, report.reason)
    if config.data.baseline:
        with reporter.task("training small models to beat"):
            report = replace(report, baseline=baseline(folder.data, seed=config.seed))
        write_json(folder.data / "report.json", report.to_json())
    reporter.say(f"what was done and what there is: {write_data_page(folder.data, config.name)}")
    return report
