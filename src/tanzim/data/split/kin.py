"""Near duplicates joined to kin before the splits are drawn, so that no draw parts them.

Candidates share a MinHash band; two whose signatures are alike enough are joined, and so are the kin of
both. The signatures alone decide: a pair too many only stays together, and one too few is found by the
comparison of the splits, whose verdict is the true similarity.

Legend: P pairs of keys; B bands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Progress
from tanzim.data.columns import Indices, Words, mix, parts_for, records, scatter
from tanzim.data.similarity import HASHES
from tanzim.data.split.spill import Spill

Mask = npt.NDArray[np.bool_]
_MEETS = 16  # rows of the same band key that a row is compared with, those after it
_PAIRS = 1 << 15  # pairs whose signatures are compared at a time
_RECORD = np.dtype([("key", "<u8"), ("row", "<i8"), ("kin", "<u8")])


@dataclass(frozen=True, slots=True)
class Joined:
    """The kin of every example, near duplicates joined.

    Args:
        spill: all examples.
        keys: kin keys that are joined with others, sorted.
        roots: the key that stands for each.

    """

    spill: Spill
    keys: Words = field(default_factory=lambda: np.empty(0, np.uint64))
    roots: Words = field(default_factory=lambda: np.empty(0, np.uint64))

    def blocks(self) -> Iterator[tuple[int, Words]]:
        """Yield the number of a block's first example, and the block's keys."""
        for first, block in self.spill.kin.blocks():
            yield first, renamed(block, self.keys, self.roots)


def join_near(
    spill: Spill, wanted: Mask, threshold: float, progress: Progress, *, most: float = 0.05
) -> Joined:
    """Join the kin of examples that are near duplicates.

    Where so many are alike, one by way of another, that together they are more than ``most`` of all, they
    are left apart: they could not be divided.

    Args:
        spill: all examples.
        wanted: which are to be divided, [N].
        threshold: Jaccard similarity of character 5-grams from which two examples count as the same.
        progress: told after each band.
        most: largest share of the examples that may be joined to one another.

    """
    # Two standard deviations below: one pair in fifty at the threshold is lost to the estimate.
    least = threshold - 2 * math.sqrt(threshold * (1 - threshold) / HASHES)
    keys, roots = np.empty(0, np.uint64), np.empty(0, np.uint64)
    same = list(_same_text(spill, wanted))
    keys, roots = components(*_both(keys, roots, same))
    for band in range(spill.bands):
        pairs = list(_alike(spill, band, wanted, least))
        keys, roots = components(*_both(keys, roots, pairs))
        progress(band + 1, spill.bands, "joining near duplicates")
    return _divisible(Joined(spill, keys, roots), wanted, most)


def components(one_P: Words, two_P: Words) -> tuple[Words, Words]:
    """Return which keys are connected by pairs: the keys, sorted, and the smallest of each one's component.

    By hooking roots and halving paths (Shiloach and Vishkin 1982).
    """
    keys, place = np.unique(np.concatenate([one_P, two_P]), return_inverse=True)
    one, two = place[: len(one_P)], place[len(one_P) :]
    root = np.arange(len(keys))
    while True:
        lowest = np.minimum(root[one], root[two])
        np.minimum.at(root, root[one], lowest)
        np.minimum.at(root, root[two], lowest)
        while (halved := root[root]).tobytes() != root.tobytes():
            root = halved
        if (root[one] == root[two]).all():
            return keys, keys[root]


def renamed(keys: Words, known: Words, roots: Words) -> Words:
    """Return each key, or the one that stands for it.

    Args:
        keys: any, [N].
        known: those that others stand for, sorted.
        roots: the key that stands for each of them.

    """
    if not len(known):
        return keys
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[at] == keys, roots[at], keys)


def _both(keys: Words, roots: Words, pairs: list[tuple[Words, Words]]) -> tuple[Words, Words]:
    one, two = [keys, *(pair[0] for pair in pairs)], [roots, *(pair[1] for pair in pairs)]
    return np.concatenate(one), np.concatenate(two)


def _parts(spill: Spill, column: str, wanted: Mask) -> Iterator[npt.NDArray[np.void]]:
    """Yield the wanted rows by their key in a column, one of each kin, part by part."""

    def found() -> Iterator[npt.NDArray[np.void]]:
        values = getattr(spill, column) if column == "full" else spill.band(int(column))
        for (first, block), (_, kin) in zip(values.blocks(), spill.kin.blocks(), strict=True):
            rows = np.flatnonzero(wanted[first : first + len(block)])
            part = np.empty(len(rows), _RECORD)
            part["key"], part["row"], part["kin"] = mix(block[rows]), rows + first, kin[rows]
            yield part

    for path in scatter(found(), spill.scratch, "kin", parts_for(int(wanted.sum()))):
        part = np.concatenate([np.empty(0, _RECORD), *records(path, _RECORD)])
        path.unlink()
        part = part[np.lexsort((part["row"], part["kin"], part["key"]))]
        same = (part["key"][1:] == part["key"][:-1]) & (part["kin"][1:] == part["kin"][:-1])
        yield part[np.concatenate([[True] * min(1, len(part)), ~same]).astype(bool)]


def _same_text(spill: Spill, wanted: Mask) -> Iterator[tuple[Words, Words]]:
    """Yield the kin keys of rows whose texts are the same."""
    for part in _parts(spill, "full", wanted):
        yield _kept(part, np.arange(len(part) - 1), 1)


def _alike(spill: Spill, band: int, wanted: Mask, least: float) -> Iterator[tuple[Words, Words]]:
    """Yield the kin keys of rows with the same band key and signatures that are alike."""
    for part in _parts(spill, str(band), wanted):
        for away in range(1, min(_MEETS, len(part) - 1) + 1):
            hits = np.flatnonzero(_pairs(part, away))
            if not len(hits):
                break
            for start in range(0, len(hits), _PAIRS):
                some = hits[start : start + _PAIRS]
                one, two = (spill.signatures[part["row"][some + offset]] for offset in (0, away))
                alike = ((one == two).mean(axis=1) - 1 / 256) / (255 / 256)
                yield _kept(part, some[alike >= least], away)


def _pairs(part: npt.NDArray[np.void], away: int) -> Mask:
    """Tell which rows have the same key as the one so far after them, [len(part) - away]."""
    same: Mask = part["key"][:-away] == part["key"][away:]
    return same


def _kept(part: npt.NDArray[np.void], places: Indices, away: int) -> tuple[Words, Words]:
    """Return the kin keys of rows and of those so far after them, where the two rows share the key."""
    other = places + away
    new = (part["key"][places] == part["key"][other]) & (part["kin"][places] != part["kin"][other])
    return part["kin"][places[new]], part["kin"][other[new]]


def _divisible(joined: Joined, wanted: Mask, most: float) -> Joined:
    """Leave those apart that are joined to more than a share of the examples."""
    if not len(joined.keys):
        return joined
    roots, place = np.unique(joined.roots, return_inverse=True)
    counts = np.zeros(len(roots), np.int64)
    for first, block in joined.blocks():
        keys = block[wanted[first : first + len(block)]]
        at = np.minimum(np.searchsorted(roots, keys), len(roots) - 1)
        counts += np.bincount(at[roots[at] == keys], minlength=len(roots))
    small: Mask = (counts <= max(2, int(most * wanted.sum())))[place]
    return Joined(joined.spill, joined.keys[small], joined.roots[small])
