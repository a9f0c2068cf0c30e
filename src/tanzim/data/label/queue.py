"""A review queue on disk: tasks, and a log of answers for each annotator, who sees no other's.

QUEUE/queue.json            the labels, and what the tasks were taken from
QUEUE/tasks-0001.jsonl      one batch of examples; further batches get files of their own
QUEUE/answers/NAME.jsonl    what NAME answered, one line for each key pressed, only ever added to
QUEUE/decisions/NAME.jsonl  what NAME decided where annotators disagree
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tanzim.core.errors import DataError
from tanzim.core.files import new_file, read_json, write_json
from tanzim.core.records import Example, Json, Provenance
from tanzim.core.seeds import derive

_NAME = re.compile(r"[\w@.+-]+")
_VERSION = 1
Book = Literal["answers", "decisions"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotator's label of one example."""

    provenance: Provenance
    annotator: str
    label: str


@dataclass(frozen=True, slots=True)
class Queue:
    """The tasks of a review queue, in order of their batches.

    Args:
        path: its folder.
        labels: to choose from, in the order of their keys.
        ordered: whether the labels run from low to high.
        source: what the tasks were taken from: a data file, or a run folder.
        seed: of every annotator's own order.
        batches: the examples of each batch.

    """

    path: Path
    labels: tuple[str, ...]
    ordered: bool = False
    source: str = ""
    seed: int = 13
    batches: tuple[tuple[Example, ...], ...] = ()

    @classmethod
    def open(cls, path: Path) -> Queue:
        """Read a queue.

        Raises:
            DataError: this is no queue, or one of its files is damaged.

        """
        file = path / "queue.json"
        if not file.is_file():
            raise DataError(
                "this is no review queue: it holds no queue.json",
                where=str(path),
                fix="make one: tanzim data queue QUEUE FILE --label ONE --label TWO",
            )
        try:
            about = read_json(file)
            if about["tanzim_queue"] != _VERSION:
                raise DataError(
                    f"a queue of version {about['tanzim_queue']}, not {_VERSION}", where=str(file)
                )
            settings = {key: about[key] for key in ("ordered", "source", "seed")}
            batches = [_read_batch(one) for one in sorted(path.glob("tasks-*.jsonl"))]
            queue = cls(path, tuple(map(str, about["labels"])), batches=tuple(batches), **settings)
        except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"this review queue is damaged ({error})", where=str(file)) from None
        by_origin(example.provenance for example in queue.tasks)
        return queue

    @property
    def tasks(self) -> list[Example]:
        """All examples that are to be labelled."""
        return [example for batch in self.batches for example in batch]

    def save(self) -> None:
        """Write the settings; make the folder.

        Raises:
            DataError: there are fewer than two labels, one is empty or stands twice, or it cannot be written.

        """
        if len(set(self.labels)) < max(2, len(self.labels)) or not all(map(str.strip, self.labels)):
            raise DataError(
                f"{list(self.labels)} is no choice: two labels or more, all different",
                where="labels",
                fix="name them: --label ONE --label TWO",
            )
        about: Json = {"tanzim_queue": _VERSION, "labels": list(self.labels), "ordered": self.ordered}
        with writing(self.path):
            write_json(self.path / "queue.json", {**about, "source": self.source, "seed": self.seed})

    def add(self, examples: Sequence[Example]) -> Queue:
        """Write a further batch; return the queue with it.

        Raises:
            DataError: an example is in the queue, two have one origin, or it cannot be written.

        """
        by_origin(example.provenance for example in (*self.tasks, *examples))
        with writing(self.path), new_file(self.path / f"tasks-{len(self.batches) + 1:04d}.jsonl") as stream:
            for example in examples:
                stream.write((json.dumps(example.to_json(), ensure_ascii=False) + "\n").encode())
        batches = (*self.batches, tuple(examples))
        return Queue(self.path, self.labels, self.ordered, self.source, self.seed, batches)

    def order(self, annotator: str) -> list[Example]:
        """Return the tasks in an annotator's own order, batch after batch.

        What comes late, and is read in haste, is then not the same for all.
        """
        found: list[Example] = []
        for number, batch in enumerate(self.batches):
            mine = list(batch)
            random.Random(derive(self.seed, "review", annotator, number)).shuffle(mine)
            found += mine
        return found

    def names(self, book: Book = "answers") -> list[str]:
        """Return who answered (or decided) something, sorted."""
        return sorted(file.stem for file in (self.path / book).glob("*.jsonl"))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise unwritten(path, error) from None


def unwritten(path: Path, error: OSError) -> DataError:
    """Return what to say of a file that cannot be written."""
    return DataError(
        f"this cannot be written ({error.strerror or error})",
        where=str(path),
        fix="free disk space, or choose a folder that you may write to; what was answered before is kept",
    )


def checked_name(annotator: str) -> str:
    """Return an annotator's name, which is also a file's.

    Raises:
        DataError: it cannot be one.

    """
    if not _NAME.fullmatch(annotator) or annotator.startswith(".") or len(annotator.encode()) > 200:
        raise DataError(
            f"{annotator!r} is no annotator's name: letters, digits and .+-_@, the first no dot",
            where="review",
        )
    return annotator


def by_origin(origins: Iterable[Provenance]) -> dict[Provenance, int]:
    """Return the place of each origin.

    Raises:
        DataError: two are the same: their labels could not be told apart.

    """
    place: dict[Provenance, int] = {}
    for number, origin in enumerate(origins):
        if place.setdefault(origin, number) != number:
            raise DataError(
                f"two examples come from {origin}: labels could not be told apart",
                where="review",
                fix="take repeated examples out first (dedup_exact)",
            )
    return place


def plain_origin(origin: Provenance) -> Json:
    """Return where an example came from as plain JSON values."""
    return {"source": origin.source, "row": origin.row, "derived": origin.derived}


def read_origin(value: Mapping[str, object]) -> Provenance:
    """Read what `plain_origin` returned."""
    return Provenance(str(value["source"]), int(str(value["row"])), str(value.get("derived") or ""))


def _read_batch(path: Path) -> tuple[Example, ...]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return tuple(Example.from_json(json.loads(line)) for line in lines if line)
