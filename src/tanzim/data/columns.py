"""Columns of numbers in files: read block by block, so that memory does not grow with their length.

Mapped pages count as memory as soon as they are touched; these are plain reads.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 17  # rows in memory at a time
_DENSE = 8  # rows of a piece from one in so many on it is read as a whole
_HIGH = 16  # bits that the first of two looks at 64-bit numbers goes by

Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a column, one after another in a file from byte ``offset`` on."""

    path: Path
    offset: int
    rows: int


class Column:
    """N values in files.

    Args:
        pieces: where they are, in order.
        dtype: of one number.
        width: numbers in a row; a column of one is read as [N], of more as [N, width].

    """

    def __init__(self, pieces: Sequence[Piece], dtype: npt.DTypeLike, width: int = 1) -> None:
        self._pieces = [piece for piece in pieces if piece.rows]
        self._ends = list(accumulate(piece.rows for piece in self._pieces))
        self._dtype, self._width = np.dtype(dtype), width

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """Yield all values in order: the number of a block's first row, and the block."""
        first, size, parts = 0, 0, list[Array]()
        for piece in self._pieces:
            for start in range(0, piece.rows, BLOCK):
                part = self._read(piece, start, min(BLOCK, piece.rows - start))
                if parts and size + len(part) > BLOCK:
                    yield first, np.concatenate(parts)
                    first, size, parts = first + size, 0, []
                parts.append(part)
                size += len(part)
        if parts:
            yield first, np.concatenate(parts)

    def _read(self, piece: Piece, start: int, rows: int) -> Array:
        at = piece.offset + start * self._width * self._dtype.itemsize
        values = np.fromfile(piece.path, self._dtype, rows * self._width, offset=at)
        return values if self._width == 1 else values.reshape(-1, self._width)

    def __getitem__(self, rows: Indices) -> Array:
        """Read some rows, in the order asked for, [len(rows)] or [len(rows), width]."""
        wanted, back = np.unique(rows, return_inverse=True)
        shape = (len(wanted),) if self._width == 1 else (len(wanted), self._width)
        found = np.empty(shape, self._dtype)
        at = 0
        while at < len(wanted):
            number = bisect_right(self._ends, wanted[at])
            piece, end = self._pieces[number], self._ends[number]
            stop = int(np.searchsorted(wanted, end))
            inside = wanted[at:stop] - (end - piece.rows)
            if len(inside) * _DENSE >= piece.rows:
                found[at:stop] = self._read(piece, 0, piece.rows)[inside]
            else:
                self._pick(piece, inside, found[at:stop])
            at = stop
        return found[back]

    def _pick(self, piece: Piece, inside: Indices, out: Array) -> None:
        size = self._width * self._dtype.itemsize
        handle = os.open(piece.path, os.O_RDONLY)
        try:
            parts = [os.pread(handle, size, piece.offset + row * size) for row in inside.tolist()]
        finally:
            os.close(handle)
        out[:] = np.frombuffer(b"".join(parts), self._dtype).reshape(out.shape)


def mix(values: Words) -> Words:
    """Scatter 64-bit values one to one (the finaliser of SplitMix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def scatter(blocks: Iterable[Array], folder: Path, name: str, parts: int) -> list[Path]:
    """Part records by their ``key`` (64 evenly spread bits), equal keys together, each part in a file.

    Args:
        blocks: arrays of records with a field ``key``.
        folder: where the files go.
        name: what they are called.
        parts: how many; a power of two.

    """
    paths = [folder / f"{name}-{part}" for part in range(parts)]
    shift = np.uint64(64 - (parts.bit_length() - 1)) if parts > 1 else None
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb", buffering=0)) for path in paths]
        for block in blocks:
            if shift is None:
                files[0].write(np.ascontiguousarray(block).data)
                continue
            part = (block["key"] >> shift).astype(np.int64)
            order = np.argsort(part, kind="stable")
            ends = np.cumsum(np.bincount(part, minlength=parts))
            for file, some in zip(files, np.split(block[order], ends[:-1]), strict=True):
                if len(some):
                    file.write(np.ascontiguousarray(some).data)
    return paths


def parts_for(rows: int) -> int:
    """Return into how many parts so many records go, so that one part is about a block."""
    return 1 << max(0, (max(1, rows) - 1) // BLOCK).bit_length()


def records(path: Path, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield the records of a file block by block."""
    with path.open("rb") as file:
        while len(block := np.fromfile(file, dtype, BLOCK)):
            yield block


def smallest(blocks: Callable[[], Iterable[Words]], count: int) -> int:
    """Return the ``count``-th smallest (from 1) of 64-bit numbers, by two looks at all of them.

    Args:
        blocks: yields the same numbers each time it is called.
        count: at least 1 and at most as many as there are.

    """
    shift = np.uint64(64 - _HIGH)
    histogram = np.zeros(1 << _HIGH, np.int64)
    for block in blocks():
        histogram += np.bincount((block >> shift).astype(np.int64), minlength=1 << _HIGH)
    below = np.cumsum(histogram)
    chosen = int(np.searchsorted(below, count))
    left = count - int(below[chosen] - histogram[chosen])
    # Of the numbers that begin alike, only values and their counts stay: one value may stand very often.
    values, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for block in blocks():
        inside = block[(block >> shift) == chosen]
        values, counts = _counted(values, counts, inside)
    return int(values[np.searchsorted(np.cumsum(counts), left)])


def _counted(values: Words, counts: Indices, more: Words) -> tuple[Words, Indices]:
    """Add to values and how often each stands."""
    if not len(more):
        return values, counts
    merged, place = np.unique(np.concatenate([values, more]), return_inverse=True)
    totals = np.zeros(len(merged), np.int64)
    np.add.at(totals, place, np.concatenate([counts, np.ones(len(more), np.int64)]))
    return merged, totals


def frequent(blocks: Callable[[], Iterable[Words]], more_than: int) -> Words:
    """Return the values that stand more often than ``more_than`` times, sorted.

    Args:
        blocks: yields the same evenly spread numbers each time it is called.
        more_than: so often at least for any memory to be saved.

    """
    shift = np.uint64(64 - _HIGH)
    histogram = np.zeros(1 << _HIGH, np.int64)
    for block in blocks():
        histogram += np.bincount((block >> shift).astype(np.int64), minlength=1 << _HIGH)
    crowded = histogram > more_than
    values, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    if crowded.any():
        for block in blocks():
            values, counts = _counted(values, counts, block[crowded[(block >> shift).astype(np.int64)]])
    return values[counts > more_than]


def quantiles(blocks: Callable[[], Iterable[Array]], shares: Sequence[float], count: int) -> list[float]:
    """Return quantiles of ``count`` whole numbers as ``numpy.quantile`` does (linear between two)."""
    spread = [_between(blocks, share * (count - 1)) for share in shares]
    return [low + (high - low) * part for low, high, part in spread]


def _between(blocks: Callable[[], Iterable[Array]], at: float) -> tuple[int, int, float]:
    def widened() -> Iterator[Words]:
        return (block.astype(np.uint64) << np.uint64(32) for block in blocks())

    below = int(at)
    low = smallest(widened, below + 1) >> 32
    high = low if below == at else smallest(widened, below + 2) >> 32
    return low, high, at - below
