"""Stage 1 of a run: files to examples on disk, and examples to tokens on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.progress import Reporter
from tanzim.core.records import Example, Json, Progress, Rendered
from tanzim.core.run import RunFolder
from tanzim.data.config import DataConfig
from tanzim.data.convert import conversation
from tanzim.data.inspect import Inspection, inspect
from tanzim.data.prepare import DataReport, prepare
from tanzim.data.store import ExampleStore
from tanzim.pipeline.config import Config
from tanzim.pipeline.workspace import open_run

SPLITS = ("train", "validation", "test")
_BATCH = 256
_QUIET = Reporter()


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


def prepare_data(config: Config, *, overwrite: bool = False, reporter: Reporter = _QUIET) -> DataReport:
    """Read, recognise, convert and split the data of ``config`` into its run directory (once).

    Args:
        config: the project.
        overwrite: delete an existing run of that name first.
        reporter: takes what was recognised, and the progress.

    Raises:
        DataError: no data is named, or too many rows cannot be used.
    """
    folder = open_run(config, overwrite=overwrite)
    done = folder.data / "report.json"
    if done.is_file():
        return DataReport(**read_json(done))
    if not config.data.path:
        raise DataError("no data is named", where="data.path", fix="tanzim init FILE writes a config for a file")
    with reporter.task("reading data") as progress:
        report = prepare(config.data, folder.data, seed=config.seed, progress=progress)
    reporter.choose("data.format", report.format, report.reason)
    return report


@dataclass(frozen=True, slots=True)
class SplitTokens:
    """One split as tokens: counts, and the lengths as a histogram.

    Args:
        examples: conversations kept.
        tokens: their tokens.
        trained_tokens: those with a loss weight.
        longest: length of the longest conversation before anything was cut, in tokens.
        dropped: overlong conversations left out.
        truncated: overlong conversations cut at ``max_length``.
        histogram: {"edges": [n + 1 lengths in tokens], "counts": [n]}.
    """

    examples: int
    tokens: int
    trained_tokens: int
    longest: int
    dropped: int
    truncated: int
    histogram: Json


def conversations(examples: Iterable[Example], config: DataConfig, labels: Sequence[str]) -> Iterator[Example]:
    """Yield each example as the conversation the model sees (a labelled text becomes question and label)."""
    for example in examples:
        yield conversation(
            example, labels=list(labels), instruction=config.instruction, system=config.system
        )


def histogram(lengths: Sequence[int], bins: int = 24) -> Json:
    """Count ``lengths`` (tokens) in ``bins`` equal bins from 0 to the longest."""
    width = max(1, -(-max(lengths, default=1) // bins))
    counts = [0] * bins
    for length in lengths:
        counts[min(length // width, bins - 1)] += 1
    return {"edges": [width * i for i in range(bins + 1)], "counts": counts}
