"""Examples between two steps: Arrow files of some thousand rows each, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tanzim.core.records import Example, Json
from tanzim.data.store import ExampleStore, ExampleWriter, examples_of, read_batches, to_text

ROWS, CHARACTERS = 10_000, 1 << 25  # of a shard, at the most


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of examples.

    Args:
        path: an Arrow file (see `tanzim.data.store`).
        rows: its examples.
        origin: 0 for examples to be split (or trained on), 1 for validation, 2 for test.
        sha256: of its texts and where they came from, in order.

    """

    path: Path
    rows: int
    origin: int
    sha256: str

    def __iter__(self) -> Iterator[Example]:
        """Read its examples one after another."""
        return (example for example, _ in self.stored())

    def stored(self) -> Iterator[tuple[Example, str]]:
        """Read its examples one after another, each with the text it is stored as."""
        for batch in read_batches(self.path):
            yield from examples_of(batch)

    def batches(self) -> Iterator[Any]:
        """Read its record batches one after another."""
        return read_batches(self.path)

    def open(self) -> ExampleStore:
        """Open it for reading at random."""
        return ExampleStore(self.path)

    def to_json(self) -> Json:
        """Return it as JSON, with the name of its file."""
        return {"file": self.path.name, "rows": self.rows, "origin": self.origin, "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Json, folder: Path) -> Shard:
        """Make it from what `to_json` returned, in a folder."""
        return cls(folder / value["file"], value["rows"], value["origin"], value["sha256"])


@dataclass(frozen=True, slots=True)
class Dataset:
    """All examples at one point of the chain."""

    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(shard.rows for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what they are, in hexadecimal."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.origin} {shard.sha256}\n".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Example]:
        """Read the examples one after another."""
        for shard in self.shards:
            yield from shard

    def of(self, origin: int) -> Dataset:
        """Return the examples of one origin."""
        return Dataset(tuple(shard for shard in self.shards if shard.origin == origin))


class ShardWriter:
    """Writes one shard; it appears whole or not at all."""

    def __init__(self, path: Path, origin: int) -> None:
        self._path, self._origin = path, origin
        self._digest = hashlib.sha256()
        self._stack = ExitStack()
        self._writer = self._stack.enter_context(ExampleWriter(path, durable=False))
        self.characters = 0

    @property
    def full(self) -> bool:
        """Whether it holds as much as a shard should."""
        return self._writer.count >= ROWS or self.characters >= CHARACTERS

    def add(self, example: Example) -> None:
        """Append an example."""
        self.add_text(example.kind, to_text(example), example.provenance.source, example.provenance.row)

    def add_text(self, kind: str, text: str, source: str, row: int) -> None:
        """Append an example as it is stored."""
        self._writer.add(kind, text, source, row)
        self._digest.update(f"{source}\0{row}\0{text}\n".encode())
        self.characters += len(text)

    def close(self) -> Shard:
        """Finish the file."""
        self._stack.close()
        return Shard(self._path, self._writer.count, self._origin, self._digest.hexdigest())

    def discard(self, error: BaseException) -> None:
        """Leave no file behind."""
        self._stack.__exit__(type(error), error, error.__traceback__)


def write_shard(path: Path, examples: Iterable[tuple[Example, str | None]], origin: int = 0) -> Shard:
    """Write one shard.

    Args:
        path: the file; it appears whole or not at all.
        examples: each with the text it is stored as, where that is known.
        origin: 0 for examples to be split (or trained on), 1 for validation, 2 for test.

    """
    writer = ShardWriter(path, origin)
    try:
        for example, text in examples:
            provenance = example.provenance
            writer.add_text(example.kind, text or to_text(example), provenance.source, provenance.row)
    except BaseException as error:
        writer.discard(error)
        raise
    return writer.close()


class ShardsWriter:
    """Writes any number of examples as shards of their usual size."""

    def __init__(self, folder: Path, origin: int) -> None:
        self._folder, self._origin = folder, origin
        self._shards: list[Shard] = []
        self._writer: ShardWriter | None = None

    def add_text(self, kind: str, text: str, source: str, row: int) -> None:
        """Append an example as it is stored."""
        if self._writer is None:
            self._writer = ShardWriter(self._folder / f"part-{len(self._shards):05d}.arrow", self._origin)
        self._writer.add_text(kind, text, source, row)
        if self._writer.full:
            self.close()

    def close(self) -> Dataset:
        """Finish the last shard; return all."""
        if self._writer is not None:
            self._shards.append(self._writer.close())
            self._writer = None
        return Dataset(tuple(self._shards))


def write_shards(folder: Path, examples: Iterable[Example], origin: int = 0) -> Dataset:
    """Write any number of examples as shards of their usual size."""
    writer = ShardsWriter(folder, origin)
    for example in examples:
        writer.add_text(example.kind, to_text(example), example.provenance.source, example.provenance.row)
    return writer.close()
