"""From data files to training, validation and test sets on disk, with a report of every row."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.powers import Powers
from tanzim.core.records import Json, Progress, no_progress
from tanzim.core.seeds import derive
from tanzim.data.chain import Done, join_lines, run_steps
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.ingest.dataset import Reading, read_data, too_many
from tanzim.data.shards import Dataset, Shard, write_shards
from tanzim.data.split.divide import (
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
from tanzim.data.split.spill import Spill
from tanzim.data.steps import parted
from tanzim.data.store import ExampleWriter, from_text

_EVERY = 1000  # rows between two reports of progress
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
    kept, executor = cache or out / ".steps", Local(config.workers)
    work = Path(tempfile.mkdtemp(dir=out, prefix=".work-"))
    run = partial(
        run_steps, cache=kept, seed=seed, powers=powers or Powers(), executor=executor, progress=progress
    )
    before, after = parted(config.steps)
    try:
        reading = read_data(config, kept, out, executor, progress)
        rejected = [*reading.rejected]
        join_lines(rejected, out / "rejected.jsonl")
        _check_rejects(reading, config, out)
        done = list(run(before, reading.dataset))
        spill = _spill(done[-1].dataset if done else reading.dataset, config, work / "all", seed, progress)
        division = divide(spill, config, seed, progress)
        if after:
            parts = _part(spill, division, work)
            done += run(after, parts.of(TRAIN))
            parts = Dataset((*done[-1].dataset.shards, *parts.of(VALIDATION).shards, *parts.of(TEST).shards))
            spill = _spill(parts, config, work / "again", seed, progress)
            division = divide_again(spill, division, config, progress)
        rejected += [path for one in done for path in one.rejected]
        join_lines(rejected, out / "rejected.jsonl")
        fingerprints = _write(spill, division, out, progress)
        report = _report(config, spill, division, reading, fingerprints, done)
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


def _spill(dataset: Dataset, config: DataConfig, folder: Path, seed: int, progress: Progress) -> Spill:
    folder.mkdir()
    near = config.split.near_duplicate if compares(config) else None
    spill = Spill(dataset, folder, near, derive(seed, "data", "minhash"))
    spill.fill(progress)
    return spill


def _part(spill: Spill, division: Division, folder: Path) -> Dataset:
    """Write what each split holds as a dataset of its own, for the steps that work on training data."""
    shards: list[Shard] = []
    for name, split in SPLITS.items():
        examples = (from_text(text, source, row) for _, text, source, row in _rows(spill, division, split))
        shards += write_shards(folder / name, examples, origin=split).shards
    return Dataset(tuple(shards))


def _rows(spill: Spill, division: Division, split: int) -> Iterator[tuple[str, str, str, int]]:
    """Yield the stored columns of the examples of one split, in order."""
    done = 0
    for batch in spill.batches():
        wanted = np.flatnonzero(division.place[done : done + batch.num_rows] == split)
        done += batch.num_rows
        yield from zip(*(c.to_pylist() for c in batch.take(wanted).columns), strict=True)


def _check_rejects(reading: Reading, config: DataConfig, out: Path) -> None:
    """Stop when too many rows, or all, cannot be used."""
    total = reading.faults.total()
    if not reading.read:
        names = ", ".join(one.about["path"] for one in reading.sources)
        raise DataError("the data holds no rows", where=names, fix="give a file with at least a few examples")
    if total > config.max_rejected * reading.read or total == reading.read:
        raise too_many(reading.faults, reading.read, config, str(out / "rejected.jsonl"))


def _write(spill: Spill, division: Division, out: Path, progress: Progress) -> dict[str, str]:
    """Write each split in the order of reading; return the fingerprints."""
    fingerprints = {}
    for name, split in SPLITS.items():
        digest = hashlib.sha256()
        with ExampleWriter(out / f"{name}.arrow") as writer:
            for kind, text, source, row in _rows(spill, division, split):
                writer.add(kind, text, source, row)
                digest.update(text.encode() + b"\n")
                if writer.count % _EVERY == 0:
                    progress(writer.count, None, f"writing {name}")
        fingerprints[name] = digest.hexdigest()
    return fingerprints


def _report(
    config: DataConfig,
    spill: Spill,
    division: Division,
    reading: Reading,
    fingerprints: dict[str, str],
    done: Sequence[Done],
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
        lengths=histogram(spill.length[place <= max(SPLITS.values())]),
        fingerprints=fingerprints,
        steps=[step.to_json() for step in steps],
        skipped=reading.skipped,
        notes=_notes(config, reading, splits, division),
    )


def _labels(spill: Spill, place: npt.NDArray[np.uint8]) -> dict[str, dict[str, int]]:
    """Count the examples of each label, and the words of each tag, in each split."""
    has = spill.label >= 0
    counts = np.zeros((len(spill.labels), UNUSED + 1), np.int64)
    np.add.at(counts, (spill.label[has], place[has]), 1)
    rows, tags, words = spill.tags.T
    np.add.at(counts, (tags, place[rows]), words)
    return {
        label: {name: int(counts[index, split]) for name, split in SPLITS.items()}
        for index, label in sorted(enumerate(spill.labels), key=lambda pair: pair[1])
    }


def histogram(lengths: npt.NDArray[np.uint32]) -> Json:
    """Return counts of lengths between `EDGES` (the last bin is open), and what is typical."""
    if not len(lengths):
        return {"unit": "characters", "edges": list(EDGES), "counts": [0] * len(EDGES)}
    bins = np.bincount(np.searchsorted(EDGES, lengths, "right") - 1, minlength=len(EDGES))
    return {
        "unit": "characters",
        "edges": list(EDGES),
        "counts": bins.tolist(),
        "mean": round(float(lengths.mean()), 1),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }


def _notes(config: DataConfig, reading: Reading, splits: dict[str, int], division: Division) -> list[str]:
    notes = []
    if count := sum(one.unanswerable for one in reading.sources):
        notes.append(f"{count} unanswerable questions are answered with data.no_answer: {config.no_answer!r}")
    if count := sum(one.further_answers for one in reading.sources):
        notes.append(f"{count} questions have several answers; the first is used")
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
            ("validation", config.split.validation or config.validation_path),
            ("test", config.split.test or config.test_path),
        )
        if asked and not splits[name]
    ]
    return notes
