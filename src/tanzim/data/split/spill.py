"""What is kept of every example while the splits are drawn: a few numbers to compare it by."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example, Progress
from tanzim.data.shards import Dataset
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

_BATCH = 2048  # examples whose signatures are made together
_BATCH_CHARACTERS = 4 << 20


def characters(example: Example) -> int:
    """Return the length of an example in characters, over all its turns."""
    turns = (*example.messages, *example.chosen, *example.rejected)
    return len(example.text) + sum(len(turn.content) for turn in turns)


class Spill:
    """Columns of N numbers in memory: those of every example of a dataset, in its order.

    Of the data, 33 bytes an example stay in memory; comparing the splits adds some three times that
    for a while. Signatures (K bytes an example) and band keys (8 B) lie in files, one per band, so
    that one band at a time is looked at.

    Args:
        dataset: the examples; their texts stay where they are.
        folder: an empty folder for the temporary files.
        near: the Jaccard similarity that counts as a near duplicate; None if nothing is compared.
        seed: chooses the hash functions.

    """

    def __init__(self, dataset: Dataset, folder: Path, near: float | None, seed: int) -> None:
        self._dataset = dataset
        self.origin = array("B")
        self._full, self._prompt, self._kin = array("Q"), array("Q"), array("Q")
        self._length, self._label = array("I"), array("i")
        self._tags = array("I")
        self._labels: dict[str, int] = {}
        self._hasher = MinHasher(seed) if near is not None else None
        self.bands, self.rows_per_band = bands_for(near) if near is not None else (0, 0)
        self._pending: list[str] = []
        self._pending_size = 0
        self._band_paths = [folder / f"band-{band}.u64" for band in range(self.bands)]
        self._signature_path = folder / "signatures.u8"
        self._bands: list[IO[bytes]] = [path.open("wb") for path in self._band_paths]
        self._signatures: IO[bytes] = self._signature_path.open("wb")

    def fill(self, progress: Progress) -> None:
        """Look at every example once."""
        with self:
            for shard in self._dataset.shards:
                for example in shard:
                    self.add(example, shard.origin)
                progress(len(self), self._dataset.rows, "comparing")

    def add(self, example: Example, origin: int) -> None:
        """Append one example of an origin (0: to be split, 1: validation, 2: test)."""
        self.origin.append(origin)
        self._length.append(characters(example))
        label = (
            self._labels.setdefault(example.label, len(self._labels)) if example.kind == "labelled" else -1
        )
        self._label.append(label)
        for tag, count in Counter(example.tags).items():
            self._tags.extend((len(self.origin) - 1, self._labels.setdefault(tag, len(self._labels)), count))
        if self._hasher is None:
            return
        full, prompt = compared(example)
        self._full.append(digest(full))
        self._prompt.append(digest(prompt))
        group = example.about.get("group")
        self._kin.append(self._prompt[-1] if group is None else digest(str(group)))
        self._pending.append(full)
        self._pending_size += len(full)
        if len(self._pending) >= _BATCH or self._pending_size >= _BATCH_CHARACTERS:
            self._sign()

    def _sign(self) -> None:
        if self._hasher is None or not self._pending:
            return
        signatures_NK = self._hasher.signatures(self._pending)
        self._pending, self._pending_size = [], 0
        self._signatures.write(signatures_NK.astype(np.uint8).tobytes())  # the low 8 bits of each
        keys_NB = band_keys(signatures_NK, self.bands, self.rows_per_band)
        for band, file in enumerate(self._bands):
            file.write(np.ascontiguousarray(keys_NB[:, band]).tobytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._sign()
        for file in (*self._bands, self._signatures):
            file.close()

    def __len__(self) -> int:
        return len(self.origin)

    @property
    def full(self) -> Words:
        """Hash of each example's compared text, [N]."""
        return np.frombuffer(self._full, np.uint64)

    @property
    def prompt(self) -> Words:
        """Hash of each example's prompt, [N]."""
        return np.frombuffer(self._prompt, np.uint64)

    @property
    def kin(self) -> Words:
        """What makes examples kin, to be drawn into one split: the same context or prompt, [N]."""
        return np.frombuffer(self._kin, np.uint64)

    @property
    def length(self) -> npt.NDArray[np.uint32]:
        """Characters of each example, [N]."""
        return np.frombuffer(self._length, np.uint32)

    @property
    def label(self) -> npt.NDArray[np.int32]:
        """Index into `labels` of each example (-1: it has none), [N]."""
        return np.frombuffer(self._label, np.int32)

    @property
    def tags(self) -> npt.NDArray[np.uint32]:
        """What tags there are: rows of (example, index into `labels`, how many of its words), [M, 3]."""
        return np.frombuffer(self._tags, np.uint32).reshape(-1, 3)

    @property
    def labels(self) -> list[str]:
        """The labels and tags, in order of appearance."""
        return list(self._labels)

    def band(self, band: int) -> Words:
        """Read the keys of one band, [N]."""
        return np.fromfile(self._band_paths[band], np.uint64)

    def signatures(self) -> npt.NDArray[np.uint8]:
        """Map the low bytes of the signatures, [N, K]."""
        return np.memmap(self._signature_path, np.uint8, "r").reshape(-1, HASHES)

    def reader(self) -> Reader:
        """Open the examples for reading at random."""
        return Reader(self._dataset)

    def batches(self) -> Iterator[Any]:
        """Yield the examples in order, as record batches of a store."""
        for shard in self._dataset.shards:
            yield from shard.batches()


class Reader:
    """Examples of a spill at random places, with the shingles they are compared by."""

    def __init__(self, dataset: Dataset) -> None:
        self._stores = [shard.open() for shard in dataset.shards]
        self._ends = list(accumulate(shard.rows for shard in dataset.shards))
        self.shingles = lru_cache(maxsize=4096)(self._shingles)

    def example(self, index: int) -> Example:
        """Read one example."""
        number = bisect_right(self._ends, index)
        return self._stores[number][index - self._ends[number]]

    def _shingles(self, index: int) -> Words:
        """Return the set of an example's shingles, sorted."""
        return np.unique(shingles(compared(self.example(index))[0]))
