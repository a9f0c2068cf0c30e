"""How many examples hold each of very many things (lines, phrases), counted in bounded memory.

Each shard writes the hashes of its things, sorted, with their counts; shards are then merged one range of
hashes at a time. Legend: K distinct things of a shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Progress, no_progress

Hashes = npt.NDArray[np.uint64]
_AT_ONCE = 1 << 22  # entries merged at a time: some 100 MB
_HELD = 1 << 21  # hashes of a shard held before they are counted


def hashed(things: Iterable[str]) -> set[int]:
    """Return a 64-bit hash of each distinct thing of one example."""
    digest = hashlib.blake2b
    return {int.from_bytes(digest(one.encode(), digest_size=8).digest(), "little") for one in set(things)}


def write_counts(path: Path, examples: Iterable[set[int]]) -> None:
    """Write in how many examples each hash stands, [2, 1 + K], sorted; first comes (0, all examples)."""
    held: list[int] = []
    hashes, counts = np.empty(0, np.uint64), np.empty(0, np.uint64)
    number = 0
    for one in examples:
        held += one
        number += 1
        if len(held) >= _HELD:
            hashes, counts = _added(hashes, counts, held)
            held = []
    hashes, counts = _added(hashes, counts, held)
    table = np.zeros((2, 1 + len(hashes)), np.uint64)
    table[0, 1:], table[1, 1:], table[1, 0] = hashes, counts, number
    with path.open("wb") as file:
        np.save(file, table)


def _added(hashes: Hashes, counts: Hashes, held: list[int]) -> tuple[Hashes, Hashes]:
    more = np.array(held, np.uint64)
    return _summed(np.concatenate([hashes, more]), np.concatenate([counts, np.ones(len(more), np.uint64)]))


def _summed(hashes: Hashes, counts: Hashes) -> tuple[Hashes, Hashes]:
    """Sum the counts of equal hashes; return both sorted by hash."""
    order = np.argsort(hashes, kind="stable")
    hashes, counts = hashes[order], counts[order]
    first = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(hashes)])
    return hashes[first], np.add.reduceat(counts, first) if len(first) else counts


def examples_of(paths: Sequence[Path]) -> int:
    """Return the number of examples that `write_counts` saw."""
    return sum(int(np.load(path, mmap_mode="r")[1, 0]) for path in paths)


def merge_counts(
    paths: Sequence[Path], least: int, progress: Progress = no_progress
) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Return the hashes that stand in at least ``least`` examples, sorted, and in how many."""
    parts = [np.load(path, mmap_mode="r")[:, 1:] for path in paths]
    ranges = 1 + sum(part.shape[1] for part in parts) // _AT_ONCE
    edges = np.array([(number << 64) // ranges for number in range(1, ranges)], np.uint64)
    cuts = [[0, *np.searchsorted(part[0], edges), part.shape[1]] for part in parts]
    hashes, counts = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for number in range(ranges if parts else 0):
        pieces = [part[:, cut[number] : cut[number + 1]] for part, cut in zip(parts, cuts, strict=True)]
        summed, of = _summed(*np.concatenate(pieces, axis=1))
        hashes.append(summed[of >= least])
        counts.append(of[of >= least])
        progress(number + 1, ranges, "counting")
    return np.concatenate(hashes), np.concatenate(counts).astype(np.int64)
