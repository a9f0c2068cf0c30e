"""All sources into one dataset: source by source in several processes, kept for the next run, resumed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from tanzim.core.errors import DataError
from tanzim.core.files import read_json, write_json
from tanzim.core.records import Json, Progress
from tanzim.data.cache import code, used
from tanzim.data.config import DataConfig
from tanzim.data.executor import Executor
from tanzim.data.ingest.convert import Converter
from tanzim.data.ingest.detect import Detection
from tanzim.data.ingest.encoding import text_size
from tanzim.data.ingest.fetch import fetch_all
from tanzim.data.ingest.ranges import SIZE, Stretch, divide_file, read_stretch
from tanzim.data.ingest.read import Ingest, ingest
from tanzim.data.ingest.remote import RemoteFile
from tanzim.data.ingest.rows import Rejected
from tanzim.data.ingest.sources import Opened, Source, find
from tanzim.data.shards import Dataset, Shard, ShardWriter

_EVERY = 1000  # rows between two reports of progress
_HOPELESS = 10_000  # rows of a source after which a share of rejects above one half stops the reading
# Keys of the config that say nothing of how a source is read.
_ELSEWHERE = {
    "path", "validation_path", "test_path", "sources", "refresh", "allow_hosts", "steps", "split",
    "max_train", "max_test", "workers", "engine", "kept_preparations",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What came out of one source.

    Args:
        about: path, bytes, container, encoding, format, reason, columns, rows, kept, rejected.
        sha256: of the file; None where there is none.
        rejected: rows that cannot be used, by reason.
        unanswerable: questions marked so.
        further_answers: questions with several answers, of which the first is used.
        shards: the examples.

    """

    about: Json
    sha256: str | None
    rejected: Counter[str]
    unanswerable: int
    further_answers: int
    shards: tuple[Shard, ...]


@dataclass(slots=True)
class Reading:
    """The rows of all sources.

    Args:
        sources: what came out of each.
        skipped: files of a folder that hold no data by their name.
        rejected: files of lines for ``rejected.jsonl``, in order.

    """

    sources: list[SourceReport] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rejected: list[Path] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Rows of all sources."""
        return sum(one.about["rows"] for one in self.sources)

    @property
    def faults(self) -> Counter[str]:
        """Rows that cannot be used, by reason."""
        return sum((one.rejected for one in self.sources), Counter())

    @property
    def dataset(self) -> Dataset:
        """The examples."""
        return Dataset(tuple(shard for one in self.sources for shard in one.shards))


@dataclass(frozen=True, slots=True)
class _Task:
    """One source to read, and what it was when it was found; or one stretch of it."""

    source: Source
    fingerprint: str | None
    origin: int
    config: DataConfig
    folder: Path
    stretch: Stretch | None = None
    detection: Detection | None = None
    pieces: int = 1


def read_data(config: DataConfig, cache: Path, out: Path, executor: Executor, progress: Progress) -> Reading:
    """Read all sources of a config; those that were read before are taken from the cache.

    Args:
        config: where the data is and how it is read.
        cache: the folder that keeps what was read.
        out: the folder that is written to, and never read from.
        executor: where the sources are read.
        progress: told the rows read so far.

    Raises:
        DataError: a source cannot be used.

    """
    reading = Reading()
    tasks: list[_Task] = []
    for origin, paths in enumerate((config.path, config.validation_path, config.test_path)):
        if paths is None or (not paths and config.sources):
            continue
        found = find(paths, out, config.allow_hosts)
        reading.skipped += found.skipped
        tasks += [_task(source, origin, config, cache) for source in found.sources]
    tasks += [_task(source, origin, config, cache) for source, origin in fetch_all(config, progress, cache)]
    _read_all([task for task in tasks if not _is_done(task)], executor, progress)
    for task in tasks:
        used(task.folder)
        done = _done(task)
        reading.sources.append(_report(done, task.folder))
        names = (task.folder / f"{part}.rejected.jsonl" for part in done["parts"])
        reading.rejected += [name for name in names if name.stat().st_size]
    progress(reading.read, reading.read, "read")
    return reading


def _read_all(tasks: list[_Task], executor: Executor, progress: Progress) -> None:
    """Read sources, several at once; large files are divided, so that all processes have work."""
    pieces: list[_Task] = []
    divided: list[tuple[_Task, list[_Task]]] = []
    for task in tasks:
        parts = _divided(task, executor, progress)
        pieces += parts or [task]
        if parts:
            divided.append((task, parts))
    if len(pieces) == 1:
        read_source(pieces[0], progress)
        return
    waiting = [task for task in pieces if not _is_done(task)]
    done = sum(_done(task)["read"] for task in pieces if _is_done(task))
    whole = sum(map(_weight, pieces))
    weight = whole - sum(map(_weight, waiting))
    with closing(executor.map(_read_quietly, waiting)) as results:
        for number, read in results:
            done += read
            weight += _weight(waiting[number])
            total = round(done * whole / weight) if weight else None
            progress(done, total, f"reading {Path(waiting[number].source.name).name}")
    for task, parts in divided:
        _join(task, parts)


def _is_done(task: _Task) -> bool:
    return (task.folder / "done.json").is_file()


def _done(task: _Task) -> Json:
    found: Json = read_json(task.folder / "done.json")
    return found


def _weight(task: _Task) -> float:
    """Return the bytes of what a task reads, about."""
    path = task.source.path
    return path.stat().st_size / task.pieces if isinstance(path, Path) else 0


def _divided(task: _Task, executor: Executor, progress: Progress) -> list[_Task]:
    """Divide a source into stretches that are read side by side; none if it is to be read in one go."""
    path = task.source.path
    if not isinstance(path, Path) or path.stat().st_size < 2 * SIZE:
        return []
    one = ingest(task.source, task.config)
    stretches = divide_file(task.source, one, task.config, executor, progress, SIZE)
    return [
        replace(
            task,
            folder=task.folder / f"{number:05d}",
            stretch=stretch,
            detection=one.detection,
            pieces=len(stretches),
        )
        for number, stretch in enumerate(stretches)
    ]


def _join(task: _Task, parts: list[_Task]) -> None:
    """Write what came out of a divided source as if it had been read in one go."""
    _check_unchanged(task)
    one = ingest(task.source, task.config)
    found = [_done(part) for part in parts]
    one.kept = sum(part["kept"] for part in found)
    one.rejected = sum((Counter(part["rejected"]) for part in found), Counter())
    done = {
        **_state(one),
        **{key: sum(part[key] for part in found) for key in ("unanswerable", "further_answers")},
        "read": one.read,
        "about": one.describe(),
        "sha256": task.fingerprint,
        "parts": [f"{part.folder.name}/{name}" for part in parts for name in _done(part)["parts"]],
    }
    write_json(task.folder / "done.json", done)


def _task(source: Source, origin: int, config: DataConfig, cache: Path) -> _Task:
    settings = config.model_dump(mode="json", exclude=_ELSEWHERE)
    content = source.fingerprint
    key = json.dumps([settings, code(), source.name, origin, content], sort_keys=True)
    return _Task(
        source, content, origin, config, cache / f"read-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    )


def _read_quietly(task: _Task) -> int:
    return read_source(task, lambda done, total, note: None)


def read_source(task: _Task, progress: Progress) -> int:
    """Read one source into shards; go on after the last one that is there. Return its rows."""
    task.folder.mkdir(parents=True, exist_ok=True)
    parts = sorted(task.folder.glob("part-*.json"))
    last: Json = read_json(parts[-1]) if parts else {}
    one = _opened(task)
    _restore(one, last)
    writing = _Writing(task, one, len(parts))
    try:
        for item in one.items(skip=one.read):
            writing.add(item)
            if one.read % _EVERY == 0:
                progress(one.read, _rows_in_all(task, one), f"reading {Path(task.source.name).name}")
                beginning = task.stretch is None or task.stretch.before == 0
                if beginning and one.read % _HOPELESS == 0 and task.config.max_rejected < 0.5:
                    _check_hopeless(one, task.config, writing)
        writing.finish()
    except BaseException as error:
        writing.discard(error)
        raise
    if task.stretch is None:
        _check_unchanged(task)
    done = {
        **_state(one),
        "read": one.read,
        "about": one.describe(),
        "sha256": None if isinstance(task.source.path, RemoteFile) else task.fingerprint,
        "parts": [f"part-{part:05d}" for part in range(writing.parts)],
    }
    write_json(task.folder / "done.json", done)
    return one.read


def _opened(task: _Task) -> Ingest:
    """Open a source, or a stretch of it, which is what the whole was recognised as."""
    if task.stretch is None or task.detection is None:
        return ingest(task.source, task.config)
    rows = read_stretch(task.stretch, task.source.name, task.config)
    converter = Converter(task.detection, task.config, task.source.name)
    opened = Opened(task.stretch.container, "", "", rows)
    return Ingest(task.source, opened, task.detection, converter, [])


def _rows_in_all(task: _Task, one: Ingest) -> int | None:
    """Return how many rows a source has, about, by the bytes they took so far."""
    path, meter = task.source.path, one.opened.meter
    if not isinstance(path, Path) or not meter.size_before or not meter.rows_before:
        return None
    return max(one.read, round(meter.rows_before * text_size(path) / meter.size_before))


def _check_unchanged(task: _Task) -> None:
    """Refuse what is half of one file and half of another."""
    path = task.source.path
    same = path.unchanged() if isinstance(path, RemoteFile) else task.source.fingerprint == task.fingerprint
    if not same:
        raise DataError(
            "the file changed while it was read",
            where=task.source.name,
            fix="run the same command again when nobody writes to it",
        )


def _state(one: Ingest) -> Json:
    return {
        "kept": one.kept,
        "rejected": dict(one.rejected),
        "unanswerable": one.converter.unanswerable if one.converter else 0,
        "further_answers": one.converter.further_answers if one.converter else 0,
    }


def _restore(one: Ingest, state: Json) -> None:
    """Count what an interrupted reading has done already."""
    if state:
        one.kept, one.rejected = state["kept"], Counter(state["rejected"])
        if one.converter:
            one.converter.unanswerable = state["unanswerable"]
            one.converter.further_answers = state["further_answers"]


class _Writing:
    """The shards of one source: each with its rejected rows, and the count up to its end."""

    def __init__(self, task: _Task, one: Ingest, parts: int) -> None:
        self._task, self._one, self.parts = task, one, parts
        self._writer: ShardWriter | None = None
        self._rejects: IO[str] | None = None

    @property
    def _name(self) -> Path:
        return self._task.folder / f"part-{self.parts:05d}"

    @property
    def rejects(self) -> Path:
        """The file of the rows rejected last."""
        return self._name.with_suffix(".rejected.part")

    def add(self, item: object) -> None:
        if self._writer is None or self._rejects is None:
            self._writer = ShardWriter(self._name.with_suffix(".arrow"), self._task.origin)
            self._rejects = self.rejects.open("w", encoding="utf-8", errors="backslashreplace")
        if isinstance(item, Rejected):
            self._rejects.write(json.dumps(item.to_json(), ensure_ascii=False) + "\n")
        else:
            self._writer.add(item)  # type: ignore[arg-type]
        if self._writer.full:
            self.finish()

    def finish(self) -> None:
        if self._writer is None or self._rejects is None:
            return
        self._rejects.close()
        self.rejects.replace(self._name.with_suffix(".rejected.jsonl"))
        shard = self._writer.close()
        write_json(self._name.with_suffix(".json"), {**_state(self._one), "shard": shard.to_json()})
        self.parts += 1
        self._writer = self._rejects = None

    def discard(self, error: BaseException) -> None:
        if self._writer is not None and self._rejects is not None:
            self._rejects.close()
            self._writer.discard(error)


def _report(done: Json, folder: Path) -> SourceReport:
    shards = (
        Shard.from_json(read_json(folder / f"{part}.json")["shard"], (folder / part).parent)
        for part in done["parts"]
    )
    return SourceReport(
        done["about"],
        done["sha256"],
        Counter(done["rejected"]),
        done["unanswerable"],
        done["further_answers"],
        tuple(shard for shard in shards if shard.rows),
    )


def _check_hopeless(one: Ingest, config: DataConfig, writing: _Writing) -> None:
    if one.rejected.total() > 0.5 * one.read:
        raise too_many(one.rejected, one.read, config, str(writing.rejects))


def too_many(faults: Counter[str], read: int, config: DataConfig, where: str) -> DataError:
    """Return the error of data of which too many rows cannot be used."""
    total = faults.total()
    top = "; ".join(f"{reason} ({count})" for reason, count in faults.most_common(3))
    return DataError(
        f"{total} of {read} rows ({total / read:.1%}) cannot be used, above "
        f"data.max_rejected ({config.max_rejected:.1%}): {top}",
        where=where,
        fix="correct these rows, map the columns in data.columns, or raise data.max_rejected",
    )
