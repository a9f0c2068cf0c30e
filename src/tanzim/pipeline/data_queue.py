"""A queue of texts for people to label: what teaches most comes first."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.progress import Reporter
from tanzim.core.records import Example, Provenance
from tanzim.core.seeds import derive
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local
from tanzim.data.ingest.dataset import read_data
from tanzim.data.label.consensus import consensus
from tanzim.data.label.pick import By, pick
from tanzim.data.label.queue import Queue
from tanzim.data.store import ExampleStore
from tanzim.data.texts import read

MOST = 20_000  # texts to choose from, and labels to learn from, drawn by chance from more


@dataclass(frozen=True, slots=True)
class Queued:
    """A queue, and what was added to it.

    Args:
        queue: the queue.
        added: tasks of the new batch.
        left: texts that could still be added.

    """

    queue: Queue
    added: int
    left: int


def queue_data(  # noqa: PLR0913 - what a queue is made of, each of which is used once
    folder: str,
    source: str | None = None,
    *,
    labels: Sequence[str] = (),
    count: int = 100,
    by: By | None = None,
    ordered: bool = False,
    relabel: bool = False,
    seed: int = 13,
    reporter: Reporter | None = None,
) -> Queued:
    """Make a review queue, or add a batch to one: texts without a label, those first that teach most.

    A small model learns from the labels that the source has and that annotators gave; while there are none,
    chance chooses. Labels of ``weak_labels`` are guesses: their texts are asked about, and while there is
    no other label the model learns from them.

    Args:
        folder: the queue.
        source: data file, folder, glob, URL or Hugging Face dataset id; or a run folder, whose training split
            is taken. Unset takes that of the queue.
        labels: to choose from; unset takes those of the queue, or those that the source has.
        count: tasks to add, at most.
        by: random, uncertainty, margin, entropy or diversity; unset takes diversity where labels are known.
        ordered: whether the labels run from low to high.
        relabel: ask about texts that have a label, too (it is not shown).
        seed: of every choice.
        reporter: takes the progress and what was chosen.

    Raises:
        ConfigError: no source is named, or labels are, and the queue has others.
        DataError: the source cannot be read, or nothing is left to label.
        MissingExtra: scikit-learn is not installed, and the choice is not random.

    """
    reporter, path = reporter or Reporter(), Path(folder)
    old = Queue.open(path) if (path / "queue.json").is_file() else None
    named = source or (old.source if old else "")
    if not named:
        raise ConfigError("no data is named", where="command line", fix=f"tanzim data queue {folder} FILE")
    if old and labels and tuple(labels) != old.labels:
        raise ConfigError(
            f"the queue has the labels {', '.join(old.labels)}",
            where="--label",
            fix="leave them out, or make another queue",
        )
    asked = {example.provenance for example in old.tasks} if old else set()
    with _examples(named, reporter) as examples:
        found = _look(examples, asked, relabel, derive(seed, "queue", len(old.batches) if old else 0))
    queue = old or Queue(path, tuple(labels) or tuple(sorted(found.labels)), ordered, named, seed)
    if not found.open:
        raise DataError(
            "there is no text left to label",
            where=named,
            fix="all are in the queue or have a label; --relabel asks about those, too",
        )
    queue.save()
    known = _known(queue, found, reporter)
    texts = [read(example) for example in found.open]
    picked = pick(
        texts, known, queue.labels, count, by=by, seed=derive(seed, "queue", "pick", len(queue.batches))
    )
    reporter.choose("--by", picked.by, picked.why)
    chosen = [found.open[place] for place in picked.places]
    return Queued(queue.add(chosen), len(chosen), found.total - len(chosen))


@dataclass(slots=True)
class _Found:
    """What a source holds: texts to ask about (a sample of very many), and labels to learn from."""

    open: list[Example]
    total: int
    known: list[tuple[str, str]]
    guessed: list[tuple[str, str]]
    labels: set[str]


T = TypeVar("T")


class _Sample(Generic[T]):
    """A uniform sample of all that comes (Vitter 1985, algorithm R)."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.kept: list[T] = []
        self.count = 0

    def add(self, value: T) -> None:
        self.count += 1
        if len(self.kept) < MOST:
            self.kept.append(value)
        elif (place := self._draw.randrange(self.count)) < MOST:
            self.kept[place] = value


def _look(examples: Iterable[Example], asked: set[Provenance], relabel: bool, seed: int) -> _Found:
    draw = random.Random(seed)
    open_: _Sample[Example] = _Sample(draw)
    known: _Sample[tuple[str, str]] = _Sample(draw)
    guessed: _Sample[tuple[str, str]] = _Sample(draw)
    labels: set[str] = set()

    for example in examples:
        has = example.kind == "labelled" and bool(example.label)
        guess = has and "weak_label" in example.about
        if has:
            labels.add(example.label)
            (guessed if guess else known).add((example.text, example.label))
        if example.provenance not in asked and (not has or guess or relabel) and read(example).strip():
            open_.add(example)
    return _Found(open_.kept, open_.count, known.kept, guessed.kept, labels)


def _known(queue: Queue, found: _Found, reporter: Reporter) -> list[tuple[str, str]]:
    """Return the labels to learn from: people's, those of the source, and while there are none, guesses."""
    said = []
    if any(queue.names()):
        verdicts = consensus(queue).verdicts
        said = [
            (read(example), verdict.label)
            for example, verdict in zip(queue.tasks, verdicts, strict=True)
            if verdict.label is not None
        ]
    known = [(text, label) for text, label in (*said, *found.known) if label in queue.labels]
    guessed = [(text, label) for text, label in found.guessed if label in queue.labels]
    if len({label for _, label in known}) < 2 and guessed:
        reporter.say(f"learning from {len(guessed):,} guesses of weak_labels, as nobody has labelled yet")
        return guessed
    return known


@contextmanager
def _examples(source: str, reporter: Reporter) -> Iterator[Iterable[Example]]:
    """Yield the examples of a data source, or of the training split of a run folder."""
    for store in (Path(source) / "data" / "train.arrow", Path(source) / "train.arrow"):
        if store.is_file():
            yield ExampleStore(store)
            return
    with tempfile.TemporaryDirectory(prefix="tanzim-queue-") as folder, reporter.task("reading") as progress:
        reading = read_data(DataConfig(path=[source]), Path(folder), Path(folder), Local(), progress)
        if faults := reading.faults:
            top = "; ".join(f"{reason} ({count})" for reason, count in faults.most_common(3))
            reporter.say(f"{faults.total()} rows cannot be read: {top}")
        yield reading.dataset
