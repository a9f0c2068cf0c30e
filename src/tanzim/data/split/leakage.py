"""Examples that stand on both sides of a split, the same or nearly: found, and verified."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json, Progress
from tanzim.data.ingest.rows import excerpt
from tanzim.data.similarity import HASHES, Words, compared, jaccard
from tanzim.data.split.spill import Reader, Spill

Indices = npt.NDArray[np.int64]
_PAIRS = 1 << 15  # candidate pairs whose signatures are compared at a time
_ROWS = 1 << 18  # rows that are looked up at a time
_MOST = 256  # held-out rows with one key that an exposed row is compared with, per band
_VERIFIED = 16  # of those, the likeliest, whose true similarity is computed
_SHOWN = 5  # pairs of each kind that a report shows


@dataclass(frozen=True, slots=True)
class Leak:
    """Rows of one side with the row of the other side that they repeat.

    Args:
        exact: exposed rows whose text is the same, and the held-out rows, [2, E].
        near: exposed rows whose similarity reaches the threshold, and the held-out rows, [2, M].
        similarity: Jaccard similarity of each near pair, [M].
        crowded: rows with more look-alikes than were compared with them one by one.

    """

    exact: Indices
    near: Indices
    similarity: npt.NDArray[np.float64]
    crowded: int = 0

    @property
    def rows(self) -> Indices:
        """All exposed rows that leak."""
        return np.concatenate([self.exact[0], self.near[0]])


def _same(values: Words, held: Indices, exposed: Indices) -> Indices:
    """Return the exposed rows whose value a held-out row has too, with that row, [2, E]."""
    order = held[np.argsort(values[held], kind="stable")]
    sorted_values = values[order]
    found = [np.empty((2, 0), dtype=np.int64)]  # there may be no exposed row
    for start in range(0, len(exposed), _ROWS):
        rows = exposed[start : start + _ROWS]
        at = np.minimum(np.searchsorted(sorted_values, values[rows]), len(order) - 1)
        hit = sorted_values[at] == values[rows]
        found.append(np.stack([rows[hit], order[at[hit]]]))
    return np.concatenate(found, axis=1)


def find_leaks(spill: Spill, held: Indices, exposed: Indices, threshold: float, progress: Progress) -> Leak:
    """Find the exposed rows that repeat a held-out row.

    Exact repeats by hash of the normalised text. Near ones by MinHash bands for candidates, the
    signatures for an estimate, and the true Jaccard similarity of their shingles for the verdict.
    Where very many rows are alike (a long text in common), a row is compared with so many of them
    only; `Leak.crowded` counts these rows.

    Args:
        spill: all examples.
        held: rows of the side that is kept as it is, [H].
        exposed: rows of the side that would give them away, [X].
        threshold: Jaccard similarity that counts as a near duplicate.
        progress: told after each band.

    """
    none: Indices = np.empty((2, 0), np.int64)
    if not len(held) or not len(exposed):
        return Leak(none, none, np.empty(0))
    exact = _same(spill.full, held, exposed)
    open_rows = np.zeros(len(spill), bool)
    open_rows[exposed] = True
    open_rows[exact[0]] = False
    _, first = np.unique(spill.full[held], return_index=True)
    near = _Near(spill, held[np.sort(first)], threshold)
    for band in range(spill.bands):
        near.look(band, open_rows)
        progress(band + 1, spill.bands, "comparing the splits")
    rows = sorted(near.found)
    pairs = np.array([rows, [near.found[row][0] for row in rows]], np.int64).reshape(2, -1)
    return Leak(exact, pairs, np.array([near.found[row][1] for row in rows]), int(near.crowded.sum()))


class _Near:
    """The search for near duplicates of held-out rows, band by band.

    Attributes:
        found: {exposed row: (held-out row, similarity)}, verified.
        crowded: rows with more candidates in a band than were looked at, [N].

    """

    def __init__(self, spill: Spill, held: Indices, threshold: float) -> None:
        self.found: dict[int, tuple[int, float]] = {}
        self.crowded = np.zeros(len(spill), bool)
        self._spill, self._held, self._threshold = spill, held, threshold
        self._signatures_NK = spill.signatures()
        self._reader = spill.reader()
        self._refuted: set[tuple[int, int]] = set()
        # Four standard deviations below the threshold: one true pair in 30,000 is lost to the estimate.
        self._least = threshold - 4 * math.sqrt(threshold * (1 - threshold) / HASHES) - 1e-9

    def look(self, band: int, open_rows: npt.NDArray[np.bool_]) -> None:
        """Verify the candidates of one band; rows that are found are closed."""
        self._refuted.clear()  # trying a pair again costs less than remembering all of them
        keys = self._spill.band(band)
        order = self._held[np.argsort(keys[self._held], kind="stable")]
        exposed = np.flatnonzero(open_rows)
        for start in range(0, len(exposed), _ROWS):
            rows = exposed[start : start + _ROWS]
            low = np.searchsorted(keys[order], keys[rows], "left")
            counts = np.searchsorted(keys[order], keys[rows], "right") - low
            self.crowded[rows[counts > _MOST]] = True
            low += (band * _MOST) % np.maximum(counts - _MOST + 1, 1)  # other bands look at others
            for pairs in _pairs(rows, low, np.minimum(counts, _MOST)):
                self._verify(pairs[0], order[pairs[1]])
        if self.found:
            open_rows[np.fromiter(self.found, np.int64)] = False

    def _verify(self, rows: Indices, others: Indices) -> None:
        """Keep the pairs that reach the threshold; of each row's, the likeliest are tried first."""
        alike = (self._signatures_NK[rows] == self._signatures_NK[others]).mean(axis=1)
        estimate = (alike - 1 / 256) / (255 / 256)  # unequal values share their low byte by chance
        order = np.argsort(-estimate, kind="stable")
        order = order[estimate[order] >= self._least]
        tried: Counter[int] = Counter()
        for row, other in zip(rows[order].tolist(), others[order].tolist(), strict=True):
            if row in self.found or (row, other) in self._refuted:
                continue
            if tried[row] >= _VERIFIED:
                self.crowded[row] = True
                continue
            tried[row] += 1
            similarity = jaccard(self._reader.shingles(row), self._reader.shingles(other))
            if similarity >= self._threshold:
                self.found[row] = (other, similarity)
            else:
                self._refuted.add((row, other))


def _pairs(rows: Indices, low: Indices, counts: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield, in blocks, each row with the positions [low, low + count) that it is to meet."""
    hits = np.flatnonzero(counts)
    start = 0
    while start < len(hits):
        totals = np.cumsum(counts[hits[start : start + _PAIRS]])
        stop = start + max(1, int(np.searchsorted(totals, _PAIRS, "right")))
        block = hits[start:stop]
        repeats = counts[block]
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        yield np.repeat(rows[block], repeats), np.repeat(low[block], repeats) + within
        start = stop


def same_prompts(spill: Spill, held: Indices, exposed: Indices) -> Indices:
    """Return exposed rows that ask what a held-out row asks, with another answer, [2, P]."""
    if not len(held) or not len(exposed):
        return np.empty((2, 0), np.int64)
    with_answer = exposed[spill.prompt[exposed] != spill.full[exposed]]
    pairs = _same(spill.prompt, held, with_answer)
    return pairs[:, spill.full[pairs[0]] != spill.full[pairs[1]]]


def shown(reader: Reader, pairs: Any, similarity: Any = None) -> list[Json]:  # noqa: ANN401 - numpy arrays
    """Return a few pairs with their provenance and beginnings, for a report."""
    rows = []
    for index, (row, other) in enumerate(pairs[:, :_SHOWN].T.tolist()):
        one, two = reader.example(row), reader.example(other)
        rows.append(
            {
                "train_side": str(one.provenance),
                "held_out": str(two.provenance),
                "similarity": 1.0 if similarity is None else round(float(similarity[index]), 3),
                "text": excerpt(compared(one)[0]),
                "other_text": excerpt(compared(two)[0]),
            }
        )
    return rows
