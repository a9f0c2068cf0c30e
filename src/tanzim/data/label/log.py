"""The log of an annotator's answers: only ever added to, each line on disk before the next task is shown."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tanzim.core.errors import DataError
from tanzim.core.files import sync_folder
from tanzim.core.records import Json, Provenance
from tanzim.data.label.queue import (
    Annotation,
    Book,
    Queue,
    checked_name,
    plain_origin,
    read_origin,
    unwritten,
    writing,
)


def answers(queue: Queue, annotator: str, book: Book = "answers") -> dict[Provenance, str | None]:
    """Return what an annotator said: a label, or None where the task was skipped.

    Raises:
        DataError: the log is damaged, or names a label or a task that the queue does not have.

    """
    return _replay(queue, queue.path / book / f"{checked_name(annotator)}.jsonl").said


def all_annotations(queue: Queue, book: Book = "answers") -> list[Annotation]:
    """Return every label that was given.

    Raises:
        DataError: a log is damaged.

    """
    return [
        Annotation(origin, name, label)
        for name in queue.names(book)
        for origin, label in answers(queue, name, book).items()
        if label is not None
    ]


@dataclass(slots=True)
class _Said:
    """What a log comes to: the answers in the order they were given, and how many bytes are whole lines."""

    said: dict[Provenance, str | None] = field(default_factory=dict)
    whole: int = 0


class Log:
    """An annotator's answers, open for more; each is on disk before the next task is shown.

    Args:
        queue: the queue.
        annotator: whose they are.
        book: answers of an annotator, or decisions where annotators disagree.

    Raises:
        DataError: the name cannot be a file's, the log is open elsewhere, damaged, or cannot be written.

    """

    def __init__(self, queue: Queue, annotator: str, book: Book = "answers") -> None:
        self.path = queue.path / book / f"{checked_name(annotator)}.jsonl"
        self._queue, self.annotator = queue, annotator
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            sync_folder(self.path.parent)
        try:
            self._lock()
            found = _replay(queue, self.path)
            with writing(self.path):
                os.ftruncate(self._handle, found.whole)  # a line cut short when the machine went down
        except BaseException:
            os.close(self._handle)
            raise
        self.said, self._end = found.said, found.whole

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; a log without an answer leaves no file."""
        if not self._end:
            self.path.unlink(missing_ok=True)
        os.close(self._handle)

    def answer(self, origin: Provenance, label: str | None) -> None:
        """Write a label down; None skips the task.

        Raises:
            DataError: the label is not one of the queue's, or the disk is full.

        """
        if label is not None and label not in self._queue.labels:
            raise DataError(f"'{label}' is not one of {', '.join(self._queue.labels)}", where=str(self.path))
        self._append({"task": plain_origin(origin), "label": label})
        self.said.pop(origin, None)  # the newest answer is the first to be undone
        self.said[origin] = label

    def undo(self) -> Provenance | None:
        """Take the newest answer back; return whose task it was, None where there is none."""
        if not self.said:
            return None
        origin = next(reversed(self.said))
        self._append({"task": plain_origin(origin), "undone": True})
        del self.said[origin]
        return origin

    def _append(self, line: Json) -> None:
        line["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        try:
            written = os.pwrite(self._handle, data, self._end)
            if written < len(data):
                raise OSError("the disk is full")
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, self._end)
            raise unwritten(self.path, error) from None
        self._end += len(data)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(
                f"{self.annotator} is answering in another terminal",
                where=str(self.path),
                fix="close that one, or give another --annotator",
            ) from None


def _replay(queue: Queue, path: Path) -> _Said:
    found = _Said()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return found
    except OSError as error:
        raise DataError(f"these answers cannot be read ({error.strerror})", where=str(path)) from None
    found.whole = data.rfind(b"\n") + 1
    known = {example.provenance for example in queue.tasks}
    for number, line in enumerate(data[: found.whole].split(b"\n")[:-1], 1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            origin = read_origin(row["task"])
            undone, label = row.get("undone") is True, row.get("label")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(
                f"this is no answer of a review ({type(error).__name__}: {error})",
                where=where,
                fix="take the line out; the task is then shown again",
            ) from None
        if origin not in known:
            raise DataError(f"it answers {origin}, which is no task of this queue", where=where)
        if label is not None and label not in queue.labels:
            raise DataError(f"'{label}' is not one of {', '.join(queue.labels)}", where=where)
        found.said.pop(origin, None)
        if not undone:
            found.said[origin] = label
    return found
