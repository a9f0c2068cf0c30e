"""What is kept of every example while the splits are drawn: a few numbers to compare it by, in files."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.files import read_json, write_json
from tanzim.core.records import Example, Json, Progress
from tanzim.data.cache import code, used
from tanzim.data.columns import Column, Piece
from tanzim.data.executor import Executor
from tanzim.data.shards import Dataset, Shard
from tanzim.data.similarity import (
    HASHES,
    MinHasher,
    Words,
    band_keys,
    bands_for,
    compared,
    digest,
    shingles,
)
from tanzim.data.store import ExampleStore

_BATCH = 2048  # examples whose signatures are made together
_BATCH_CHARACTERS = 4 << 20
_OPEN = 16  # shards that a reader keeps open
_SHINGLED = 512  # examples whose shingles a reader keeps


def characters(example: Example) -> int:
    """Return the length of an example in characters, over all its turns."""
    return len(example.text) + sum(len(turn.content) for turn in example.turns)


@dataclass(frozen=True, slots=True)
class _Task:
    """One shard to look at."""

    shard: Shard
    out: Path
    near: float | None
    seed: int


def _layout(rows: int, tags: int, bands: int) -> dict[str, tuple[int, str, int, int]]:
    """Return of each column of a shard's file: first byte, type, numbers in a row, rows."""
    layout = {}
    at = 0
    columns = [("length", "<u4", 1, rows), ("label", "<i4", 1, rows), ("tags", "<u4", 3, tags)]
    if bands:
        columns += [(name, "<u8", 1, rows) for name in ("full", "prompt", "kin")]
        columns += [(f"band-{band}", "<u8", 1, rows) for band in range(bands)]
        columns += [("signatures", "u1", HASHES, rows)]
    for name, dtype, width, count in columns:
        layout[name] = (at, dtype, width, count)
        at += np.dtype(dtype).itemsize * width * count
    return layout


def _look(task: _Task) -> None:
    """Write the numbers of one shard."""
    look = _Look(task)
    for example in task.shard:
        look.add(example)
    look.write()


class _Look:
    """The numbers of one shard, collected."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._length, self._label, self._tags = array("I"), array("i"), array("I")
        self._full, self._prompt, self._kin = array("Q"), array("Q"), array("Q")
        self._labels: dict[str, int] = {}
        self._hasher = MinHasher(task.seed) if task.near is not None else None
        self._bands, self._rows_per_band = bands_for(task.near) if task.near is not None else (0, 0)
        self._pending: list[str] = []
        self._size = 0
        self._signatures: list[npt.NDArray[np.uint8]] = []
        self._keys: list[Words] = []

    def add(self, example: Example) -> None:
        """Look at one example."""
        number = len(self._length)
        self._length.append(characters(example))
        labelled = example.kind == "labelled"
        self._label.append(self._labels.setdefault(example.label, len(self._labels)) if labelled else -1)
        for tag, count in Counter(example.tags).items():
            self._tags.extend((number, self._labels.setdefault(tag, len(self._labels)), count))
        if self._hasher is None:
            return
        full, prompt = compared(example)
        self._full.append(digest(full))
        self._prompt.append(digest(prompt))
        group = example.about.get("group")
        self._kin.append(self._prompt[-1] if group is None else digest(str(group)))
        self._pending.append(full)
        self._size += len(full)
        if len(self._pending) >= _BATCH or self._size >= _BATCH_CHARACTERS:
            self._sign(self._hasher)

    def _sign(self, hasher: MinHasher) -> None:
        if self._pending:
            signatures_NK = hasher.signatures(self._pending)
            self._pending, self._size = [], 0
            self._signatures.append(signatures_NK.astype(np.uint8))  # the low 8 bits of each
            self._keys.append(band_keys(signatures_NK, self._bands, self._rows_per_band))

    def write(self) -> None:
        """Write the file of the shard, and beside it what it holds."""
        columns: list[Any] = [self._length, self._label, self._tags]
        if self._hasher is not None:
            self._sign(self._hasher)
            keys_NB = np.concatenate([*self._keys, np.empty((0, self._bands), np.uint64)])
            columns += [self._full, self._prompt, self._kin, *keys_NB.T, *self._signatures]
        with self._task.out.with_suffix(".numbers").open("wb") as file:
            for column in columns:
                file.write(np.ascontiguousarray(column).tobytes())
        about = {"rows": len(self._length), "tags": len(self._tags) // 3, "labels": list(self._labels)}
        write_json(self._task.out.with_suffix(".json"), about)


class Spill:
    """Columns of N numbers in files: those of every example of a dataset, in its order.

    Looked at shard by shard, in several processes; what was looked at before is taken as it is. Per
    example 20 bytes lie on disk, and where splits are compared another 24 + 8 a band + 126.

    Args:
        dataset: the examples; their texts stay where they are.
        folder: for the files; those of an earlier look at the same are there.
        near: the Jaccard similarity that counts as a near duplicate; None if nothing is compared.
        seed: chooses the hash functions.

    Attributes:
        scratch: a folder for temporary files.
        labels: the labels and tags, in order of appearance.
        bands: how many band columns there are.

    """

    def __init__(self, dataset: Dataset, folder: Path, near: float | None, seed: int) -> None:
        self._dataset, self._folder = dataset, folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._near, self._seed = near, seed
        self.bands = bands_for(near)[0] if near is not None else 0
        self._about: list[Json] = []
        self.labels: list[str] = []
        self._label: Column | None = None
        self._tags: Column | None = None

    def fill(self, executor: Executor, progress: Progress) -> None:
        """Look at every example once."""
        tasks = [
            _Task(shard, self._folder / f"part-{number:05d}", self._near, self._seed)
            for number, shard in enumerate(self._dataset.shards)
        ]
        left = [task for task in tasks if not task.out.with_suffix(".json").is_file()]
        rows, total = len(self) - sum(task.shard.rows for task in left), len(self)
        progress(rows, total, "comparing")
        for number, _ in executor.map(_look, left):
            rows += left[number].shard.rows
            progress(rows, total, "comparing")
        self._about = [read_json(task.out.with_suffix(".json")) for task in tasks]
        if any(about["labels"] for about in self._about):
            self._number_labels()

    def _number_labels(self) -> None:
        """Give each label one number over all shards."""
        numbers: dict[str, int] = {}
        label_path, tags_path = self._folder / "label", self._folder / "tags"
        first = tags = 0
        own = [self._column("label", part) for part in range(len(self._about))]
        own_tags = [self._column("tags", part) for part in range(len(self._about))]
        with label_path.open("wb") as label_file, tags_path.open("wb") as tags_file:
            for about, labels, triples in zip(self._about, own, own_tags, strict=True):
                known = [numbers.setdefault(label, len(numbers)) for label in about["labels"]]
                place = np.array([*known, -1], np.int32)  # an index of -1 stays what it is
                for _, block in labels.blocks():
                    label_file.write(place[block].tobytes())
                for _, block in triples.blocks():
                    tag = place[block[:, 1]].astype(np.uint32)
                    tags_file.write(np.stack([block[:, 0] + first, tag, block[:, 2]], axis=1).tobytes())
                first += about["rows"]
                tags += about["tags"]
        self.labels = list(numbers)
        self._label = Column([Piece(label_path, 0, first)], "<i4")
        self._tags = Column([Piece(tags_path, 0, tags)], "<u4", 3)

    def _column(self, name: str, part: int | None = None) -> Column:
        numbers: Iterable[int] = range(len(self._about)) if part is None else [part]
        pieces, dtype, width = [], "u1", 1
        for number in numbers:
            about = self._about[number]
            at, dtype, width, count = _layout(about["rows"], about["tags"], self.bands)[name]
            pieces.append(Piece(self._folder / f"part-{number:05d}.numbers", at, count))
        return Column(pieces, dtype, width)

    def __len__(self) -> int:
        return self._dataset.rows

    def origin(self) -> npt.NDArray[np.uint8]:
        """Return where each example comes from (0: to be split, 1: validation, 2: test), [N]."""
        shards = self._dataset.shards
        return np.repeat(np.array([s.origin for s in shards], np.uint8), [s.rows for s in shards])

    @property
    def full(self) -> Column:
        """Hash of each example's compared text, [N] of uint64."""
        return self._column("full")

    @property
    def prompt(self) -> Column:
        """Hash of each example's prompt, [N] of uint64."""
        return self._column("prompt")

    @property
    def kin(self) -> Column:
        """What makes examples kin, to be drawn into one split: the same context or prompt, [N] of uint64."""
        return self._column("kin")

    @property
    def length(self) -> Column:
        """Characters of each example, [N] of uint32."""
        return self._column("length")

    @property
    def label(self) -> Column:
        """Index into `labels` of each example (-1: it has none), [N] of int32."""
        return self._label or self._column("label")

    @property
    def tags(self) -> Column:
        """What tags there are: (example, index into `labels`, how many of its words), [M, 3] of uint32."""
        return self._tags or self._column("tags")

    def band(self, band: int) -> Column:
        """Keys of one band, [N] of uint64."""
        return self._column(f"band-{band}")

    @property
    def signatures(self) -> Column:
        """The low bytes of the signatures, [N, K] of uint8."""
        return self._column("signatures")

    def reader(self) -> Reader:
        """Open the examples for reading at random."""
        return Reader(self._dataset.shards)

    def batches(self) -> Iterator[Any]:
        """Yield the examples in order, as record batches of a store."""
        for shard in self._dataset.shards:
            yield from shard.batches()


def spill_of(
    dataset: Dataset, cache: Path, near: float | None, seed: int, executor: Executor, progress: Progress
) -> Spill:
    """Look at every example of a dataset, or take what an earlier look left in the cache.

    Args:
        dataset: the examples.
        cache: the folder that keeps results.
        near: the Jaccard similarity that counts as a near duplicate; None if nothing is compared.
        seed: chooses the hash functions.
        executor: where the shards are looked at.
        progress: told the examples done.

    """
    key = hashlib.sha256(json.dumps([code(), dataset.fingerprint, near, seed]).encode()).hexdigest()
    spill = Spill(dataset, used(cache / f"split-{key[:24]}"), near, seed)
    spill.fill(executor, progress)
    return spill


class Reader:
    """Examples of a spill at random places, with the shingles they are compared by."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._ends = list(accumulate(shard.rows for shard in shards))
        self._store = lru_cache(maxsize=_OPEN)(self._opened)
        self.shingles = lru_cache(maxsize=_SHINGLED)(self._shingles)

    def _opened(self, number: int) -> ExampleStore:
        return self._shards[number].open()

    def example(self, index: int) -> Example:
        """Read one example."""
        number = bisect_right(self._ends, index)
        return self._store(number)[index - self._ends[number]]

    def _shingles(self, index: int) -> Words:
        """Return the set of an example's shingles, sorted."""
        return np.unique(shingles(compared(self.example(index))[0]))
