"""From data files to training, validation and test sets on disk, with a report of every row."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, sha256, write_json
from tanzim.core.records import Json, Progress, no_progress
from tanzim.core.seeds import derive
from tanzim.data.config import DataConfig
from tanzim.data.ingest.read import Ingest, ingest
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import Found, find
from tanzim.data.split.divide import LEAKED, SPLITS, UNUSED, Division, compares, divide
from tanzim.data.split.spill import Spill
from tanzim.data.store import ExampleWriter

_EVERY = 1000  # rows between two reports of progress
_HOPELESS = 10_000  # rows after which a share of rejects above one half stops the reading
EDGES = (0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600)


@dataclass(frozen=True, slots=True)
class DataReport:
    """What became of every row: rows_read = kept in splits + rejected + dropped + unused.

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


@dataclass(slots=True)
class _Reading:
    """The rows of all sources so far."""

    ingests: list[Ingest] = field(default_factory=list)
    hashes: list[str | None] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def read(self) -> int:
        return sum(one.read for one in self.ingests)

    @property
    def rejected(self) -> Counter[str]:
        return sum((one.rejected for one in self.ingests), Counter())


def prepare(config: DataConfig, out: Path, *, seed: int, progress: Progress = no_progress) -> DataReport:
    """Read, recognise, convert and split the data; write the splits and a report.

    Writes ``train.arrow``, ``validation.arrow``, ``test.arrow`` (see `ExampleStore`),
    ``rejected.jsonl`` (file, row, reason of each row that could not be used) and ``report.json``.
    Rows are streamed: memory grows by some 140 bytes an example (bench/data_memory.py).

    Args:
        config: where the data is and how it is read and split.
        out: the folder to write to.
        seed: the run's seed.
        progress: told the rows read so far.

    Raises:
        DataError: a source cannot be used, too many rows are rejected, or splits leak under
            ``leakage: error``. ``rejected.jsonl`` stays for a look.

    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").unlink(missing_ok=True)
    work = Path(tempfile.mkdtemp(dir=out, prefix=".work-"))
    near = config.split.near_duplicate if compares(config) else None
    try:
        with (
            (out / "rejected.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as rejects,
            Spill(work, near, derive(seed, "data", "minhash")) as spill,
        ):
            reading = _read(config, out, spill, rejects, progress)
        _check_rejects(reading, config, out)
        division = divide(spill, config, seed, progress)
        fingerprints = _write(spill, division, out, progress)
        report = _report(config, spill, division, reading, fingerprints)
    except OSError as error:
        raise DataError(
            f"the prepared data cannot be written ({error.strerror or error})",
            where=str(out),
            fix="free disk space (about three times the size of the data), or choose another folder",
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_json(out / "report.json", report.to_json())
    return report


def _read(config: DataConfig, out: Path, spill: Spill, rejects: Any, progress: Progress) -> _Reading:  # noqa: ANN401 - a text file
    reading = _Reading()
    groups: list[Found] = []
    for paths in (config.path, config.validation_path, config.test_path):
        groups.append(find(paths, out) if paths is not None else Found([]))
    for group, found in enumerate(groups):
        reading.skipped += found.skipped
        for source in found.sources:
            before = reading.read
            one = ingest(source, config)
            reading.ingests.append(one)
            reading.hashes.append(sha256(source.path) if source.path else None)
            for count, item in enumerate(one.items(), before + 1):
                if isinstance(item, Rejected):
                    rejects.write(json.dumps(item.to_json(), ensure_ascii=False) + "\n")
                else:
                    spill.add(item, group)
                if count % _EVERY == 0:
                    progress(count, None, f"reading {Path(source.name).name}")
                    if count >= _HOPELESS and count % _HOPELESS == 0:
                        _check_hopeless(reading, config)
    progress(reading.read, reading.read, "read")
    return reading


def _check_hopeless(reading: _Reading, config: DataConfig) -> None:
    if config.max_rejected < 0.5 and reading.rejected.total() > 0.5 * reading.read:
        raise _too_many(reading, config, "rejected.jsonl in the output folder")


def _check_rejects(reading: _Reading, config: DataConfig, out: Path) -> None:
    """Stop when too many rows, or all, cannot be used."""
    total = reading.rejected.total()
    if not reading.read:
        names = ", ".join(one.source.name for one in reading.ingests)
        raise DataError("the data holds no rows", where=names, fix="give a file with at least a few examples")
    if total > config.max_rejected * reading.read or total == reading.read:
        raise _too_many(reading, config, str(out / "rejected.jsonl"))


def _too_many(reading: _Reading, config: DataConfig, where: str) -> DataError:
    total = reading.rejected.total()
    top = "; ".join(f"{reason} ({count})" for reason, count in reading.rejected.most_common(3))
    return DataError(
        f"{total} of {reading.read} rows ({total / reading.read:.1%}) cannot be used, above "
        f"data.max_rejected ({config.max_rejected:.1%}): {top}",
        where=where,
        fix="correct these rows, map the columns in data.columns, or raise data.max_rejected",
    )


def _write(spill: Spill, division: Division, out: Path, progress: Progress) -> dict[str, str]:
    """Write each split in the order of reading; return the fingerprints."""
    fingerprints = {}
    for name, split in SPLITS.items():
        digest = hashlib.sha256()
        done = 0
        with ExampleWriter(out / f"{name}.arrow") as writer:
            for batch in spill.batches():
                wanted = np.flatnonzero(division.place[done : done + batch.num_rows] == split)
                done += batch.num_rows
                for kind, text, source, row in zip(
                    *(c.to_pylist() for c in batch.take(wanted).columns), strict=True
                ):
                    writer.add(kind, text, source, row)
                    digest.update(text.encode() + b"\n")
                progress(done, len(spill), f"writing {name}")
        fingerprints[name] = digest.hexdigest()
    return fingerprints


def _report(
    config: DataConfig, spill: Spill, division: Division, reading: _Reading, fingerprints: dict[str, str]
) -> DataReport:
    place = division.place
    splits = {name: int((place == split).sum()) for name, split in SPLITS.items()}
    dropped, unused = int((place == LEAKED).sum()), int((place == UNUSED).sum())
    rejected = reading.rejected
    # Nothing is lost without a word.
    assert reading.read == sum(splits.values()) + rejected.total() + dropped + unused
    found = [one.detection for one in reading.ingests if one.detection]
    formats = list(dict.fromkeys(one.format for one in found))
    reasons = list(dict.fromkeys(one.reason for one in found))
    files = [
        {**one.describe(), "sha256": digest}
        for one, digest in zip(reading.ingests, reading.hashes, strict=True)
    ]
    return DataReport(
        format=formats[0] if len(formats) == 1 else "mixed",
        reason="; ".join(reasons),
        columns={part: name for one in reversed(found) for part, name in one.columns.items()},
        files=files,
        rows_read=reading.read,
        splits=splits,
        rejected=dict(rejected.most_common()),
        leakage=division.leakage,
        unused=division.unused,
        labels=_labels(spill, place),
        lengths=histogram(spill.length[place <= max(SPLITS.values())]),
        fingerprints=fingerprints,
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


def _notes(config: DataConfig, reading: _Reading, splits: dict[str, int], division: Division) -> list[str]:
    notes = []
    converters = [one.converter for one in reading.ingests if one.converter]
    if count := sum(converter.unanswerable for converter in converters):
        notes.append(f"{count} unanswerable questions are answered with data.no_answer: {config.no_answer!r}")
    if count := sum(converter.further_answers for converter in converters):
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
