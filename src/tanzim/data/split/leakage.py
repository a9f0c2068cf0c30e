"""Examples that stand on both sides of a split, the same or nearly: found, and verified.

Every comparison goes part by part: rows with equal keys lie in the same part, and one part is in memory.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json, Progress
from tanzim.data.columns import Column, Indices, parts_for, records, scatter
from tanzim.data.ingest.rows import excerpt
from tanzim.data.similarity import HASHES, jaccard
from tanzim.data.similarity import compared as compared_text
from tanzim.data.split.spill import Reader, Spill

Mask = npt.NDArray[np.bool_]
_PAIRS = 1 << 15  # candidate pairs whose signatures are compared at a time
_MOST = 256  # held-out rows with one key that an exposed row is compared with, per band
_VERIFIED = 16  # of those, the likeliest, whose true similarity is computed
_SHOWN = 5  # pairs of each kind that a report shows
# A row, what it is looked up by, and what else is to be known of it.
_RECORD = np.dtype([("key", "<u8"), ("row", "<i8"), ("value", "<u8")])

Pair = tuple[int, int, float]  # exposed row, held-out row, similarity


@dataclass(slots=True)
class Found:
    """How many pairs were found, and the first of them."""

    count: int = 0
    first: list[Pair] = field(default_factory=list)

    def add(self, row: int, other: int, similarity: float = 1.0) -> None:
        """Count a pair; keep it if it is among the first."""
        self.count += 1
        bisect.insort(self.first, (row, other, similarity))
        del self.first[_SHOWN:]

    def extend(self, rows: Indices, others: Indices) -> None:
        """Count pairs that are the same."""
        self.count += len(rows)
        pairs = [(int(rows[i]), int(others[i]), 1.0) for i in np.argsort(rows, kind="stable")[:_SHOWN]]
        self.first = sorted([*self.first, *pairs])[:_SHOWN]


@dataclass(frozen=True, slots=True)
class Leak:
    """Rows of one side that the other side repeats.

    Args:
        rows: whether a row leaks, [N].
        exact: pairs with the same text.
        near: pairs whose similarity reaches the threshold.
        crowded: rows with more look-alikes than were compared with them one by one.

    """

    rows: Mask
    exact: Found
    near: Found
    crowded: int = 0


def _records(column: Column, wanted: Mask, value: Column | None = None) -> Iterator[npt.NDArray[Any]]:
    """Yield a column's wanted rows as records."""
    beside = value.blocks() if value is not None else None
    for first, block in column.blocks():
        other = next(beside)[1] if beside is not None else None
        rows = np.flatnonzero(wanted[first : first + len(block)])
        found = np.empty(len(rows), _RECORD)
        found["key"], found["row"] = block[rows], rows + first
        found["value"] = 0 if other is None else other[rows]
        yield found


class _Parts:
    """Held-out and exposed rows of a column, equal keys in the same part; the files go at the end.

    Args:
        spill: all examples.
        column: what they are looked up by.
        held: which are held out, [N].
        exposed: which are to be looked up, [N].
        value: another column that goes along.
        most: held-out rows of one key that are kept.
        turn: chooses which, where there are more.

    """

    def __init__(
        self,
        spill: Spill,
        column: Column,
        held: Mask,
        exposed: Mask,
        *,
        value: Column | None = None,
        most: int = 1,
        turn: int = 0,
    ) -> None:
        parts = parts_for(int(held.sum()) + int(exposed.sum()))
        self._held = scatter(_records(column, held, value), spill.scratch, "held", parts)
        self._exposed = scatter(_records(column, exposed, value), spill.scratch, "exposed", parts)
        self._most, self._turn = most, turn

    def __iter__(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Yield held-out records sorted by key, and a block of exposed ones, part by part."""
        for held_path, exposed_path in zip(self._held, self._exposed, strict=True):
            held = self._kept(held_path)
            if len(held):
                for exposed in records(exposed_path, _RECORD):
                    yield held, exposed
            held_path.unlink()
            exposed_path.unlink()

    def _kept(self, path: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - a Path
        kept = np.empty(0, _RECORD)
        for block in records(path, _RECORD):
            kept = np.concatenate([kept, block])
            # Which ones stay of very many with one key: the first, or in each turn others.
            choice = kept["row"] if self._turn == 0 else (kept["row"] * (2 * self._turn + 1)) % 1_000_003
            kept = kept[np.lexsort((choice, kept["key"]))]
            starts = np.flatnonzero(np.concatenate([[True], kept["key"][1:] != kept["key"][:-1]]))
            counts = np.diff(starts, append=len(kept))
            within = np.arange(len(kept)) - np.repeat(starts, counts)
            kept = kept[within < self._most]
        return kept[np.lexsort((kept["row"], kept["key"]))]


def _same(spill: Spill, held: Mask, exposed: Mask, repeats: Mask) -> Found:
    """Find exposed rows whose text a held-out row has too.

    Args:
        spill: all examples.
        held: which are held out, [N].
        exposed: which are to be looked up, [N].
        repeats: set where one is found, [N].

    """
    found = Found()
    for kept, block in _Parts(spill, spill.full, held, exposed):
        at = np.minimum(np.searchsorted(kept["key"], block["key"]), len(kept) - 1)
        hit = kept["key"][at] == block["key"]
        repeats[block["row"][hit]] = True
        found.extend(block["row"][hit], kept["row"][at[hit]])
    return found


def _firsts(spill: Spill, rows: Mask) -> Mask:
    """Return the first row of each text among some rows, [N]."""
    first = np.zeros(len(spill), bool)
    for kept in _distinct(spill, rows):
        first[kept] = True
    return first


def repeats(spill: Spill, rows: Mask) -> int:
    """Return how many of some rows repeat another one of them."""
    return int(rows.sum()) - sum(len(kept) for kept in _distinct(spill, rows))


def _distinct(spill: Spill, rows: Mask) -> Iterator[Indices]:
    paths = scatter(_records(spill.full, rows), spill.scratch, "texts", parts_for(int(rows.sum())))
    for path in paths:
        kept = np.empty(0, _RECORD)
        for block in records(path, _RECORD):
            kept = np.concatenate([kept, block])
            kept = kept[np.unique(kept["key"], return_index=True)[1]]
        path.unlink()
        yield kept["row"]


def find_leaks(spill: Spill, held: Mask, exposed: Mask, threshold: float, progress: Progress) -> Leak:
    """Find the exposed rows that repeat a held-out row.

    Exact repeats by hash of the normalised text. Near ones by MinHash bands for candidates, the
    signatures for an estimate, and the true Jaccard similarity of their shingles for the verdict.
    Where very many rows are alike (a long text in common), a row is compared with so many of them
    only; `Leak.crowded` counts these rows.

    Args:
        spill: all examples.
        held: which rows are on the side that is kept as it is, [N].
        exposed: which are on the side that would give them away, [N].
        threshold: Jaccard similarity that counts as a near duplicate.
        progress: told after each band.

    """
    leaks = np.zeros(len(spill), bool)
    if not held.any() or not exposed.any():
        return Leak(leaks, Found(), Found())
    exact = _same(spill, held, exposed, leaks)
    near = _Near(spill, threshold, leaks)
    first = _firsts(spill, held)
    for band in range(spill.bands):
        near.look(band, first, exposed & ~leaks)
        progress(band + 1, spill.bands, "comparing the splits")
    return Leak(leaks, exact, near.found, int(near.crowded.sum()))


class _Near:
    """The search for near duplicates of held-out rows, band by band.

    Attributes:
        found: verified pairs.
        crowded: rows with more candidates in a band than were looked at, [N].

    """

    def __init__(self, spill: Spill, threshold: float, leaks: Mask) -> None:
        self.found = Found()
        self.crowded = np.zeros(len(spill), bool)
        self._leaks = leaks
        self._spill, self._threshold = spill, threshold
        self._signatures = spill.signatures
        self._reader = spill.reader()
        # Four standard deviations below the threshold: one true pair in 30,000 is lost to the estimate.
        self._least = threshold - 4 * math.sqrt(threshold * (1 - threshold) / HASHES) - 1e-9

    def look(self, band: int, held: Mask, exposed: Mask) -> None:
        """Verify the candidates of one band; rows that are found are marked as leaks."""
        parts = _Parts(self._spill, self._spill.band(band), held, exposed, most=_MOST + 1, turn=band)
        for kept, block in parts:
            low = np.searchsorted(kept["key"], block["key"], "left")
            counts = np.searchsorted(kept["key"], block["key"], "right") - low
            self.crowded[block["row"][counts > _MOST]] = True
            refuted: set[tuple[int, int]] = set()
            for rows, at in _pairs(block["row"], low, np.minimum(counts, _MOST)):
                self._verify(rows, kept["row"][at], refuted)

    def _verify(self, rows: Indices, others: Indices, refuted: set[tuple[int, int]]) -> None:
        """Mark the pairs that reach the threshold; of each row's, the likeliest are tried first."""
        alike = (self._signatures[rows] == self._signatures[others]).mean(axis=1)
        estimate = (alike - 1 / 256) / (255 / 256)  # unequal values share their low byte by chance
        order = np.argsort(-estimate, kind="stable")
        order = order[estimate[order] >= self._least]
        tried: Counter[int] = Counter()
        for row, other in zip(rows[order].tolist(), others[order].tolist(), strict=True):
            if self._leaks[row] or (row, other) in refuted:
                continue
            if tried[row] >= _VERIFIED:
                self.crowded[row] = True
                continue
            tried[row] += 1
            similarity = jaccard(self._reader.shingles(row), self._reader.shingles(other))
            if similarity >= self._threshold:
                self._leaks[row] = True
                self.found.add(row, other, similarity)
            else:
                refuted.add((row, other))


def _pairs(rows: Indices, low: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield, in blocks, each row with the positions [low, low + count) that it is to meet."""
    hits = np.flatnonzero(counts)
    start = 0
    while start < len(hits):
        totals = np.cumsum(counts[hits[start : start + _PAIRS]])
        stop = start + max(1, int(np.searchsorted(totals, _PAIRS, "right")))
        block = hits[start:stop]
        many = counts[block]
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        yield np.repeat(rows[block], many), np.repeat(low[block], many) + within
        start = stop


def same_prompts(spill: Spill, held: Mask, exposed: Mask) -> Found:
    """Find exposed rows that ask what a held-out row asks, with another answer."""
    found = Found()
    if not held.any() or not exposed.any():
        return found
    for kept, block in _Parts(spill, spill.prompt, held, exposed, value=spill.full):
        asked = block[block["value"] != block["key"]]  # there is an answer beside the prompt
        at = np.minimum(np.searchsorted(kept["key"], asked["key"]), len(kept) - 1)
        hit = (kept["key"][at] == asked["key"]) & (kept["value"][at] != asked["value"])
        found.extend(asked["row"][hit], kept["row"][at[hit]])
    return found


def shown(reader: Reader, found: Found) -> list[Json]:
    """Return a few pairs with their provenance and beginnings, for a report."""
    rows = []
    for row, other, similarity in found.first:
        one, two = reader.example(row), reader.example(other)
        rows.append(
            {
                "train_side": str(one.provenance),
                "held_out": str(two.provenance),
                "similarity": round(similarity, 3),
                "text": excerpt(compared_text(one)[0]),
                "other_text": excerpt(compared_text(two)[0]),
            }
        )
    return rows
