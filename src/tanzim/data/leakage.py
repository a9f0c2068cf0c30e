"""Examples that stand on both sides of a split, the same or nearly: found, and verified."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Json, Progress
from tanzim.data.rows import excerpt
from tanzim.data.similarity import HASHES, Words, compared, jaccard
from tanzim.data.spill import Reader, Spill

Indices = npt.NDArray[np.int64]
_PAIRS = 1 << 15  # candidate pairs whose signatures are compared at a time
_SHOWN = 5  # pairs of each kind that a report shows


@dataclass(frozen=True, slots=True)
class Leak:
    """Rows of one side with the row of the other side that they repeat.

    Args:
        exact: exposed rows whose text is the same, and the held-out rows, [2, E].
        near: exposed rows whose similarity reaches the threshold, and the held-out rows, [2, M].
        similarity: Jaccard similarity of each near pair, [M].

    """

    exact: Indices
    near: Indices
    similarity: npt.NDArray[np.float64]

    @property
    def rows(self) -> Indices:
        """All exposed rows that leak."""
        return np.concatenate([self.exact[0], self.near[0]])


def _same(values: Words, held: Indices, exposed: Indices) -> Indices:
    """Return the exposed rows whose value a held-out row has too, with that row, [2, E]."""
    order = held[np.argsort(values[held], kind="stable")]
    at = np.searchsorted(values[order], values[exposed])
    at_or_last = np.minimum(at, len(order) - 1)
    hit = values[order[at_or_last]] == values[exposed]
    return np.stack([exposed[hit], order[at_or_last[hit]]])


def find_leaks(spill: Spill, held: Indices, exposed: Indices, threshold: float, progress: Progress) -> Leak:
    """Find the exposed rows that repeat a held-out row.

    Exact repeats by hash of the normalised text. Near ones by MinHash bands for candidates, the
    signatures for an estimate, and the true Jaccard similarity of their shingles for the verdict.

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
    rest = np.setdiff1d(exposed, exact[0], assume_unique=True)
    _, first = np.unique(spill.full[held], return_index=True)
    found = _near(spill, held[np.sort(first)], rest, threshold, progress)
    if not found:
        return Leak(exact, none, np.empty(0))
    rows = sorted(found)
    near = np.array([rows, [found[row][0] for row in rows]], np.int64)
    return Leak(exact, near, np.array([found[row][1] for row in rows]))


def _near(
    spill: Spill, held: Indices, exposed: Indices, threshold: float, progress: Progress
) -> dict[int, tuple[int, float]]:
    """Return {exposed row: (held-out row, similarity)} for verified near duplicates."""
    found: dict[int, tuple[int, float]] = {}
    refuted: set[tuple[int, int]] = set()
    signatures_NK = spill.signatures()
    reader = spill.reader()
    # Five standard deviations below the threshold: no true pair is lost to the estimate.
    least = threshold - 5 * math.sqrt(threshold * (1 - threshold) / HASHES) - 1e-9
    open_rows = exposed
    for band in range(spill.bands):
        keys = spill.band(band)
        for rows, others in _candidates(keys, held, open_rows):
            alike = (signatures_NK[rows] == signatures_NK[others]).mean(axis=1)
            estimate = (alike - 1 / 256) / (255 / 256)  # unequal values share their low byte by chance
            for row, other in zip(
                rows[estimate >= least].tolist(), others[estimate >= least].tolist(), strict=True
            ):
                if row in found or (row, other) in refuted:
                    continue
                similarity = jaccard(reader.shingles(row), reader.shingles(other))
                if similarity >= threshold:
                    found[row] = (other, similarity)
                else:
                    refuted.add((row, other))
        if found:
            open_rows = np.setdiff1d(exposed, np.fromiter(found, np.int64), assume_unique=True)
        progress(band + 1, spill.bands, "comparing the splits")
    return found


def _candidates(keys: Words, held: Indices, exposed: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Yield, in blocks, the pairs of an exposed and a held-out row with the same key."""
    order = held[np.argsort(keys[held], kind="stable")]
    low = np.searchsorted(keys[order], keys[exposed], "left")
    counts = np.searchsorted(keys[order], keys[exposed], "right") - low
    hits = np.flatnonzero(counts)
    start = 0
    while start < len(hits):
        totals = np.cumsum(counts[hits[start:]])
        stop = start + max(1, int(np.searchsorted(totals, _PAIRS, "right")))
        block = hits[start:stop]
        repeats = counts[block]
        within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        yield np.repeat(exposed[block], repeats), order[np.repeat(low[block], repeats) + within]
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
