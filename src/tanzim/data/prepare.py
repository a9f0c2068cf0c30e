"""From data files to training, validation and test sets on disk, with a report of every row."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.powers import Powers
from tanzim.core.records import Json, Progress, no_progress
from tanzim.core.seeds import derive
from tanzim.data.cache import STEPS, alone, prune, prune_shared
from tanzim.data.chain import Done, run_steps
from tanzim.data.columns import quantiles
from tanzim.data.config import DataConfig, StepConfig
from tanzim.data.executor import Executor, open_executor
from tanzim.data.ingest.dataset import Reading, read_data, too_many
from tanzim.data.ingest.fetch import sources_folder
from tanzim.data.ledger import join_lines, removed_line
from tanzim.data.shards import Dataset, ShardsWriter
from tanzim.data.split.divide import (
    LEAKED,
    SPLITS,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Division,
    compares,
    divide,
    divide_again,
)
from tanzim.data.split.spill import Spill, spill_of
from tanzim.data.step import Removed
from tanzim.data.steps import parted
from tanzim.data.store import ExampleWriter, examples_of

_WORK = ".work-"  # how folders begin that are deleted in the end
_LEAKED = "the same or nearly the same stands in a held-out split"
EDGES = (0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600)


@dataclass(frozen=True, slots=True)
class DataReport:
    """What became of every row: rows_read + added = in splits + rejected + removed + dropped + unused.

    Args:
        format: the detected format, or "mixed".
        reason: why, one sentence per format.
        columns: which column plays which part.
        files: each source: path, sha256, bytes, container, encoding, format, rows.
        rows_read: rows of all sources.
        splits: examples in train, validation and test.
        rejected: rows that could not be used, by reason.
        leakage: duplicates across splits: mode, exact, near, dropped, pairs; same prompts.
        unused: examples left out by max_train and max_test.
        labels: examples per label and split, for labelled data; words per tag and split, for tagged.
        lengths: characters per example: edges and counts of the histogram, mean, median, p95, max.
        fingerprints: sha256 over the examples of each split.
        steps: what each step did (see `StepReport`).
        skipped: files of a folder that hold no data by their name.
        notes: what the user should know.
        drawn: how the splits were drawn: the method, and of folds which one.
        baseline: what small models make of the labels (see ``data.baseline``).
        cache: where results are kept for the next time, their bytes, what was deleted, and by what rule.

    """

    format: str
    reason: str
    columns: dict[str, str]
    files: list[Json]
    rows_read: int
    splits: dict[str, int]
    rejected: dict[str, int]
    leakage: Json
    unused: dict[str, int]
    labels: dict[str, dict[str, int]]
    lengths: Json
    fingerprints: dict[str, str]
    steps: list[Json] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drawn: Json = field(default_factory=dict)
    baseline: Json = field(default_factory=dict)
    cache: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """Return the report as plain JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> DataReport:
        """Read the report of a folder that `prepare` wrote."""
        path = folder / "report.json"
        if not path.is_file():
            raise DataError(
                "this folder holds no prepared data", where=str(folder), fix="prepare the data first"
            )
        return cls(**read_json(path))


def prepare(
    config: DataConfig,
    out: Path,
    *,
    seed: int,
    cache: Path | None = None,
    powers: Powers | None = None,
    progress: Progress = no_progress,
) -> DataReport:
    """Read, recognise, convert, run the steps, and split; write the splits and a report.

    Writes ``train.arrow``, ``validation.arrow``, ``test.arrow`` (see `ExampleStore`),
    ``rejected.jsonl`` (file, row, reason of each row that could not be used or was taken out by a step)
    and ``report.json``. Rows are streamed, and what was done before is taken from the cache.

    Args:
        config: where the data is, how it is read, what is done with it, how it is split.
        out: the folder to write to.
        seed: the run's seed.
        cache: the folder that keeps what was read and what each step made; one inside ``out`` if not given.
        powers: what steps may need of higher rooms.
        progress: told the rows done so far.

    Raises:
        DataError: a source cannot be used, too many rows are rejected, or splits leak under
            ``leakage: error``. ``rejected.jsonl`` stays for a look.

    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").unlink(missing_ok=True)
    for left in out.glob(f"{_WORK}*"):  # of a preparation that was killed
        shutil.rmtree(left, ignore_errors=True)
    kept = cache or out / STEPS
    work = Path(tempfile.mkdtemp(dir=out, prefix=_WORK))
    settings = json.dumps([str(out.resolve()), config.model_dump(mode="json"), seed], sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:24]
    try:
        with alone(kept, name, progress), closing(open_executor(config.engine, config.workers)) as executor:
            place = _Place(config, out, kept, work, seed, powers or Powers(), executor, progress)
            report = _prepare(place)
    except OSError as error:
        raise DataError(
            f"the prepared data cannot be written ({error.strerror or error})",
            where=str(out),
            fix="free disk space (about five times the size of the data), or choose another folder",
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_json(out / "report.json", report.to_json())
    return report


@dataclass(frozen=True, slots=True)
class _Place:
    """What a preparation works with, and where."""

    config: DataConfig
    out: Path
    cache: Path
    work: Path
    seed: int
    powers: Powers
    executor: Executor
    progress: Progress

    def steps(self, configs: list[StepConfig], dataset: Dataset) -> list[Done]:
        """Run steps on a dataset."""
        return list(
            run_steps(
                configs,
                dataset,
                self.cache,
                seed=self.seed,
                powers=self.powers,
                executor=self.executor,
                progress=self.progress,
            )
        )

    def look(self, dataset: Dataset) -> Spill:
        """Look at every example for the splits."""
        near = self.config.split.near_duplicate if compares(self.config) else None
        seed = derive(self.seed, "data", "minhash")
        return spill_of(dataset, self.cache, near, seed, self.executor, self.progress)


def _prepare(at: _Place) -> DataReport:
    before, after = parted(at.config.steps)
    reading = read_data(at.config, at.cache, at.out, at.executor, at.progress)
    removed = at.out / "rejected.jsonl"
    join_lines(reading.rejected, removed)
    _check_rejects(reading, at.config, at.out)
    done = at.steps(before, reading.dataset)
    join_lines([path for one in done for path in one.rejected], removed, more=True)
    spill = at.look(done[-1].dataset if done else reading.dataset)
    division = divide(spill, at.config, at.seed, at.progress)
    _list_leaks(spill, division, removed)
    if after:
        parts = _part(spill, division, at.work)
        trained = at.steps(after, parts.of(TRAIN))
        join_lines([path for one in trained for path in one.rejected], removed, more=True)
        held = (*parts.of(VALIDATION).shards, *parts.of(TEST).shards)
        spill = at.look(Dataset((*trained[-1].dataset.shards, *held)))
        division = divide_again(spill, division, at.config, at.progress)
        _list_leaks(spill, division, removed)
        done += trained
    fingerprints = _write(spill, division, at.out, at.progress)
    kept = prune(at.cache, at.config.kept_preparations)
    if sources_folder().is_dir():
        kept["sources"] = prune_shared(sources_folder(), at.cache)
    return _report(at.config, spill, division, reading, fingerprints, done, kept)


def _list_leaks(spill: Spill, division: Division, path: Path) -> None:
    """Append the examples that are dropped as duplicates of held-out ones to ``rejected.jsonl``."""
    if not (division.place == LEAKED).any():
        return
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for batch, place in _placed(spill, division):
            leaked = batch.take(np.flatnonzero(place == LEAKED))
            for example, _ in examples_of(leaked):
                line = removed_line("split", Removed(example, _LEAKED))
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _part(spill: Spill, division: Division, folder: Path) -> Dataset:
    """Write what each split holds as a dataset of its own, for the steps that work on training data."""
    writers = {split: ShardsWriter(folder / name, split) for name, split in SPLITS.items()}
    for batch, place in _placed(spill, division):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for row, split in zip(rows, place.tolist(), strict=True):
            if split in writers:
                writers[split].add_text(*row)
    return Dataset(tuple(shard for writer in writers.values() for shard in writer.close().shards))


def _placed(spill: Spill, division: Division) -> Iterator[tuple[Any, npt.NDArray[np.uint8]]]:
    """Yield the examples in order, as record batches, and where each goes."""
    done = 0
    for batch in spill.batches():
        yield batch, division.place[done : done + batch.num_rows]
        done += batch.num_rows


def _check_rejects(reading: Reading, config: DataConfig, out: Path) -> None:
    """Stop when too many rows, or all, cannot be used."""
    total = reading.faults.total()
    if not reading.read:
        names = ", ".join(one.about["path"] for one in reading.sources)
        raise DataError("the data holds no rows", where=names, fix="give a file with at least a few examples")
    if total > config.max_rejected * reading.read or total == reading.read:
        raise too_many(reading.faults, reading.read, config, str(out / "rejected.jsonl"))


def _write(spill: Spill, division: Division, out: Path, progress: Progress) -> dict[str, str]:
    """Write the splits in the order of reading; return their fingerprints."""
    digests = {name: hashlib.sha256() for name in SPLITS}
    done = 0
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ExampleWriter(out / f"{name}.arrow")) for name in SPLITS}
        for batch, place in _placed(spill, division):
            for name, split in SPLITS.items():
                rows = np.flatnonzero(place == split)
                if len(rows):
                    mine = batch.take(rows)
                    writers[name].add_batch(mine)
                    digests[name].update("".join(f"{text}\n" for text in mine.column(1).to_pylist()).encode())
            done += batch.num_rows
            progress(done, len(spill), "writing the splits")
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _report(
    config: DataConfig,
    spill: Spill,
    division: Division,
    reading: Reading,
    fingerprints: dict[str, str],
    done: Sequence[Done],
    kept: Json,
) -> DataReport:
    place = division.place
    splits = {name: int((place == split).sum()) for name, split in SPLITS.items()}
    unused = sum(division.unused.values())
    rejected, steps = reading.faults, [one.report for one in done]
    # Nothing is lost without a word.
    removed = rejected.total() + sum(step.removed.total() for step in steps)
    added = sum(step.added for step in steps)
    assert reading.read + added == sum(splits.values()) + removed + division.dropped + unused
    found = [one.about for one in reading.sources if one.about["format"]]
    formats = list(dict.fromkeys(one["format"] for one in found))
    reasons = list(dict.fromkeys(one["reason"] for one in found))
    return DataReport(
        format=formats[0] if len(formats) == 1 else "mixed",
        reason="; ".join(reasons),
        columns={part: name for one in reversed(found) for part, name in one["columns"].items()},
        files=[{**one.about, "sha256": one.sha256} for one in reading.sources],
        rows_read=reading.read,
        splits=splits,
        rejected=dict(rejected.most_common()),
        leakage=division.leakage,
        unused=division.unused,
        labels=_labels(spill, place),
        lengths=histogram(partial(_lengths, spill, place)),
        fingerprints=fingerprints,
        steps=[step.to_json() for step in steps],
        skipped=reading.skipped,
        notes=_notes(config, reading, splits, division),
        drawn=division.drawn,
        cache=kept,
    )


def _labels(spill: Spill, place: npt.NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Count the examples of each label, and the words of each tag, in each split."""
    counts = np.zeros((len(spill.labels), UNUSED + 1), np.int64)
    if not spill.labels:
        return {}
    for first, labels in spill.label.blocks():
        has = labels >= 0
        np.add.at(counts, (labels[has], place[first : first + len(labels)][has]), 1)
    for _, block in spill.tags.blocks():
        rows, tags, words = block.T
        np.add.at(counts, (tags, place[rows]), words)
    return {
        label: {name: int(counts[index, split]) for name, split in SPLITS.items()}
        for index, label in sorted(enumerate(spill.labels), key=lambda pair: pair[1])
    }


def histogram(blocks: Callable[[], Iterable[npt.NDArray[np.uint32]]]) -> Json:
    """Return counts of lengths between `EDGES` (the last bin is open), and what is typical.

    Args:
        blocks: yields the lengths, array by array; called several times.

    """
    bins, total, most = np.zeros(len(EDGES), np.int64), 0, 0
    for block in blocks():
        bins += np.bincount(np.searchsorted(EDGES, block, "right") - 1, minlength=len(EDGES))
        total += int(block.sum(dtype=np.int64))
        most = max(most, int(block.max(initial=0)))
    found = {"unit": "characters", "edges": list(EDGES), "counts": bins.tolist()}
    count = int(bins.sum())
    if not count:
        return found
    median, p95 = quantiles(blocks, (0.5, 0.95), count)
    return {**found, "mean": round(total / count, 1), "median": median, "p95": p95, "max": most}


def _lengths(spill: Spill, place: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint32]]:
    """Yield the lengths of the examples that are in a split."""
    for first, block in spill.length.blocks():
        yield block[place[first : first + len(block)] <= max(SPLITS.values())]


def _notes(config: DataConfig, reading: Reading, splits: dict[str, int], division: Division) -> list[str]:
    notes = []
    if count := sum(one.unanswerable for one in reading.sources):
        notes.append(f"{count} unanswerable questions are answered with data.no_answer: {config.no_answer!r}")
    if count := sum(one.further_answers for one in reading.sources):
        notes.append(f"{count} questions have several answers; the first is used")
    if "fold" in division.drawn:
        fold, folds = division.drawn["fold"], division.drawn["folds"]
        notes.append(f"the test set is fold {fold} of {folds}; data.split.fold names another")
    if reading.skipped:
        notes.append(
            f"{len(reading.skipped)} files in the folder are no data files by their name: left aside"
        )
    dropped = sum(division.leakage.get("dropped", {}).values())
    if dropped:
        notes.append(
            f"{dropped} examples were dropped: the same or nearly the same stand in a held-out split"
        )
    if division.leakage.get("mode") == "allow" and division.leakage["exact"] + division.leakage["near"]:
        notes.append("duplicates stand on both sides of the split, as split.leakage is allow: scores flatter")
    if crowded := division.leakage.get("crowded"):
        notes.append(
            f"{crowded} rows look alike to very many others; each was compared with some of them only"
        )
    if repeats := division.leakage.get("repeats_in_train"):
        notes.append(f"{repeats} training examples repeat another one; they are kept")
    if same := division.leakage.get("same_prompt_other_answer"):
        notes.append(f"{same} training prompts also stand in a held-out split, with other answers")
    notes += [
        f"the {name} split is empty"
        for name, asked in (
            ("validation", config.split.validation or config.divided("validation")),
            ("test", config.split.test or config.divided("test")),
        )
        if asked and not splits[name]
    ]
    return notes
