"""Prepared data on record: published for others, compared with another version, traced to its source."""

from __future__ import annotations

from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.core.progress import Reporter
from tanzim.core.run import RunFolder
from tanzim.data.cache import STEPS
from tanzim.data.describe.diff import DataDiff, data_diff
from tanzim.data.describe.lineage import Lineage, lineage
from tanzim.data.describe.publish import publish
from tanzim.pipeline.config import Config


def publish_data(config: Config, output: str, *, reporter: Reporter | None = None) -> list[Path]:
    """Write prepared data as JSON Lines with a data sheet and Croissant metadata, for others to use.

    Args:
        config: the project, its data prepared.
        output: the folder to write.
        reporter: takes the progress.

    Raises:
        DataError: the data is not prepared.

    """
    reporter = reporter or Reporter()
    folder = RunFolder(Path(config.runs_dir) / config.name)
    with reporter.task("publishing") as progress:
        return publish(folder.data, Path(output), config.data.card, config.name, progress)


def diff_data(one: str, two: str) -> DataDiff:
    """Say what differs between the prepared data of two runs.

    Args:
        one: run folder, or folder of prepared data.
        two: the newer one.

    Raises:
        DataError: a folder holds no prepared data.

    """
    return data_diff(_data(one), _data(two))


def trace_data(run: str, split: str, number: int) -> Lineage:
    """Lead an example of a run back to the row it came from.

    Args:
        run: run folder.
        split: train, validation or test.
        number: which example of the split, counted from 1.

    Raises:
        DataError: there is no such run or example.

    """
    folder = Path(run)
    return lineage(_data(run), folder.parent / STEPS, split, number)


def _data(name: str) -> Path:
    folder = Path(name)
    found = folder / "data" if (folder / "data").is_dir() else folder
    if not folder.is_dir():
        raise DataError("there is no such folder", where=name, fix="give a run's folder, such as runs/NAME")
    return found
