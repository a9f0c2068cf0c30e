"""Exact duplicates: the same text, once case, white space and double spellings are put aside."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np

from tanzim.core.records import Json, Progress
from tanzim.data.dedup.columns import Array, Table
from tanzim.data.dedup.config import DedupExactConfig
from tanzim.data.dedup.fold import fold_list
from tanzim.data.dedup.members import GroupStep, Parents

_ROWS = 1 << 18  # of a part of all hashes, about
_PARTS = 64
_TOGETHER = 512  # texts normalised together


class DedupExact(GroupStep[DedupExactConfig]):
    """Of examples whose normalised text is the same keep one.

    The hash has 128 bits (BLAKE2b): among 10¹² texts, two that differ share one with probability 10⁻¹⁵.
    """

    reason = "the same as another example"
    said = "the same as {where} (kept as {why})"

    def look(self, texts: Sequence[str]) -> dict[str, Array]:
        """Return the hashes, in order, with the row of each."""
        digests: list[bytes] = []
        for first in range(0, len(texts), _TOGETHER):
            folded = fold_list(texts[first : first + _TOGETHER])
            codes, ends = folded.codes.data.cast("B"), (4 * folded.ends).tolist()
            digests += [blake2b(codes[a:b], digest_size=16).digest() for a, b in pairwise(ends)]
        hashes = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        return {"hash": hashes[order], "row": order.astype(np.uint32)}

    def link(self, table: Table, parents: Parents, progress: Progress) -> Json:
        """Put equal ones under the first of them, a part of all hashes at a time."""
        count = min(_PARTS, -(-len(table) // _ROWS))
        bounds = [part * ((1 << 64) // count) for part in range(1, count)]
        edges = [
            [0, *np.searchsorted(part.map("hash")[:, 0], np.array(bounds, np.uint64)).tolist(), size]
            for part, size in zip(table.parts, np.diff(table.starts).tolist(), strict=True)
        ]
        for turn in range(count):
            hashes, rows = [], []
            for number, part in enumerate(table.parts):
                hashes.append(part.read("hash", *edges[number][turn : turn + 2]))
                rows.append(
                    part.read("row", *edges[number][turn : turn + 2]) + np.uint32(table.starts[number])
                )
            _put_together(np.concatenate(hashes), np.concatenate(rows), parents)
            progress(turn + 1, count, "comparing")
        return {}


def _put_together(hashes: Array, rows: Array, parents: Parents) -> None:
    if not len(rows):
        return
    order = np.lexsort((rows, hashes[:, 1], hashes[:, 0]))
    hashes, rows = hashes[order], rows[order]
    new = np.concatenate([[True], (hashes[1:] != hashes[:-1]).any(axis=1)])
    parents[rows] = rows[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]
