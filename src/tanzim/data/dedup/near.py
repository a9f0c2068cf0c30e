"""The search for near duplicates: MinHash bands for candidates, estimate and true Jaccard for the verdict.

Band keys lie sorted in the surveys' files; one part of one band at a time is read, sorted and looked through,
on as many threads as there are cores (the compiled loops run without the interpreter's lock).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tanzim.core.optional import need
from tanzim.core.records import Progress
from tanzim.data.dedup.columns import Array, Rows, Table, pack_texts
from tanzim.data.dedup.fold import fold_texts
from tanzim.data.similarity import HASHES, MinHasher, bands_for

T = TypeVar("T")
_TOGETHER = 1 << 18  # bytes of text normalised and signed together: what the caches hold
_ROWS, _PARTS = 1 << 18, 16  # rows in a part of a band, about, and parts at the most
_PAIRS = 1 << 14  # candidates looked at together
_FEW = 1 << 10  # fewer wait for those of the next band: to look at every file has its price
_FAR = 16  # of more candidates with one key, each meets so many, and the first
# What a signature is kept with: the low byte of each place. Unequal places share it by chance.
_CHANCE = 1 / 256


def text_columns(texts: list[str], hasher: MinHasher, threshold: float, *, verify: bool) -> dict[str, Array]:
    """Return what texts are compared by.

    Args:
        texts: as they are.
        hasher: makes the signatures.
        threshold: Jaccard similarity from which two are nearly the same.
        verify: whether the normalised texts are needed, too.

    Returns:
        band: sorted words for each band: key, then row, [B, N]; signature: [N, K]; and for ``verify`` text,
        text_places, width (see `narrow`).

    """
    return columns_of(*pack_texts(texts), hasher, threshold, verify=verify)


def columns_of(
    data: npt.NDArray[np.uint8], starts: Rows, hasher: MinHasher, threshold: float, *, verify: bool
) -> dict[str, Array]:
    """Return the same for texts in UTF-8, one after another, with where each begins, [N + 1]."""
    near = need("tanzim.data.dedup.kernels_near", "dedup")
    bands, rows = bands_for(threshold)
    count = len(starts) - 1
    words_BN = np.empty((bands, count), np.uint64)
    signatures_NK = np.empty((count, hasher.hashes), np.uint8)
    # Memory is taken as it is written to; code points that need four bytes take the whole of it.
    packed = np.empty(4 * int(starts[-1] - starts[0]) if verify else 0, np.uint8)
    places, widths = np.zeros(count + 1, np.int64), np.empty(count, np.uint8)
    first = 0
    while first < count:
        stop = max(first + 1, int(np.searchsorted(starts, starts[first] + _TOGETHER, "right")) - 1)
        folded = fold_texts(data, starts[first : stop + 1])
        signed_NK = hasher.sketch(folded)
        signatures_NK[first:stop] = signed_NK
        near.band_words(signed_NK, rows, first, words_BN)
        if verify:
            near.narrow(folded.codes, folded.ends, packed, places[first : stop + 1], widths[first:stop])
        first = stop
    words_BN.sort(axis=1)
    columns: dict[str, Array] = {"band": words_BN, "signature": signatures_NK}
    if verify:
        columns |= {"text": packed[: places[-1]], "text_places": places, "width": widths}
    return columns


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[..., T], tasks: Iterable[tuple[Any, ...]]
) -> Iterator[T]:
    """Yield the results of calls in order, of which a few are worked on ahead."""
    waiting: deque[Future[T]] = deque()
    left = iter(tasks)
    while True:
        while len(waiting) < _cores() and (task := next(left, None)) is not None:
            waiting.append(pool.submit(function, *task))
        if not waiting:
            return
        yield waiting.popleft().result()


def threaded(function: Callable[..., T], tasks: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Call a function on as many threads as there are cores; yield the results as they come."""
    cores = _cores()
    waiting: set[Future[T]] = set()
    left = iter(tasks)
    with ThreadPoolExecutor(cores) as pool:
        while True:
            while len(waiting) < cores + 1 and (task := next(left, None)) is not None:
                waiting.add(pool.submit(function, *task))
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


class Search:
    """Joins rows that are nearly the same.

    Args:
        table: the columns that `columns_of` returned, of all shards.
        parents: the row that each stands under, [N]; itself at first.
        threshold: Jaccard similarity from which two are nearly the same.
        verify: whether the texts decide; else the signatures' estimate does.

    Attributes:
        crowded: times that a row met only some of those that share a band with it, and joined none of them.

    """

    def __init__(self, table: Table, parents: Array, threshold: float, *, verify: bool) -> None:
        self._near = need("tanzim.data.dedup.kernels_near", "dedup")
        self._table, self._parents, self._threshold, self._verify = table, parents, threshold, verify
        self._bands = bands_for(threshold)[0]
        self._waiting: list[Rows] = []
        self.crowded = 0

    def run(self, progress: Progress) -> None:
        """Look through all bands; then each row stands under the least row of its group."""
        parts = max(1, min(_PARTS, -(-len(self._table) // _ROWS)))
        tasks = [(band, part, parts) for part in range(parts) for band in range(self._bands)]
        with ThreadPoolExecutor(_cores()) as pool:
            for done, words in enumerate(_ahead(pool, self._words, tasks), 1):
                self._look(words, pool)
                progress(done, len(tasks), "comparing")
            self._settle(pool)
        self._near.flatten(self._parents)
        if self.crowded:  # what was counted on the way depends on which thread was first
            self.crowded = sum(threaded(self._passed_over, tasks))

    def _passed_over(self, band: int, part: int, parts: int) -> int:
        """Count the rows of one part of one band that were not compared with all of their key."""
        words, state = self._words(band, part, parts), np.zeros(2, np.int64)
        nothing = np.empty(_FAR + 2, np.uint32)
        self._near.neighbours(words, self._parents, _FAR + 1, _FAR, nothing, nothing, state)
        return int(state[1])

    def _look(self, words: Array, pool: ThreadPoolExecutor) -> None:
        """Take the candidates that one part of one band shows, and join those that are nearly the same."""
        # First each with the one before and the first of its key: a group of copies needs no more.
        for near, far in ((1, 1), (2, _FAR)):
            state = np.zeros(2, np.int64)
            while state[0] < len(words):
                pairs = np.empty((2, _PAIRS), np.uint32)
                count = self._near.neighbours(words, self._parents, near, far, *pairs, state)
                self._waiting.append(pairs[:, :count].astype(np.int64))
                if sum(pairs.shape[1] for pairs in self._waiting) > _FEW:
                    self._settle(pool)
            self.crowded += int(state[1])

    def _settle(self, pool: ThreadPoolExecutor) -> None:
        """Join those of the candidates so far that are nearly the same."""
        joined = np.unique(np.concatenate([np.empty(0, np.int64), *(a << 32 | b for a, b in self._waiting)]))
        pairs = np.stack([joined >> 32, joined & 0xFFFFFFFF])
        self._waiting = []
        for linked in pool.map(self._alike, np.array_split(pairs, _cores(), axis=1)):
            self._near.join(self._parents, *linked)

    def _words(self, band: int, part: int, parts: int) -> Array:
        """Read and sort the words of one part of one band, with the rows counted over all shards."""
        bounds = np.array([(turn << 32) // parts << 32 for turn in (part, part + 1)], object)
        bounds = np.minimum(bounds, (1 << 64) - 1).astype(np.uint64)
        found = []
        for number, columns in enumerate(self._table.parts):
            words = columns.map("band")[band]
            first, stop = np.searchsorted(words, bounds).tolist()
            stop = stop if part + 1 < parts else len(words)
            found.append(words[first:stop] + np.uint64(self._table.starts[number]))
        joined = np.concatenate(found)
        joined.sort()
        return joined

    def _alike(self, pairs: Rows) -> Rows:
        """Return the pairs, [2, P], that are nearly the same."""
        estimate = self.estimates(pairs)
        if not self._verify:
            return pairs[:, estimate >= self._threshold]
        # Beyond four standard deviations the estimate is as good as certain: one pair in 30,000 deceives it.
        doubt = 4 * math.sqrt(self._threshold * (1 - self._threshold) / HASHES) + 1e-9
        sure = estimate > self._threshold + doubt
        open_pairs = pairs[:, ~sure & (estimate >= self._threshold - doubt)]
        found = open_pairs[:, self.similarities(open_pairs) >= self._threshold]
        return np.concatenate([pairs[:, sure], found], axis=1)

    def estimates(self, pairs: Rows) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of pairs of rows, as their signatures estimate it, [P]."""
        rows, places = _rows_of(pairs)
        signatures_RK = self._table.at("signature", rows)
        same = np.empty(pairs.shape[1], np.int64)
        if len(same):
            self._near.agreement(signatures_RK, *places, same)
        share = same / (signatures_RK.shape[1] if len(same) else 1)
        return np.asarray((share - _CHANCE) / (1 - _CHANCE))

    def similarities(self, pairs: Rows) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of pairs of rows, by their texts, [P]."""
        found = np.empty(pairs.shape[1])
        for start in range(0, len(found), _PAIRS):
            rows, places = _rows_of(pairs[:, start : start + _PAIRS])
            data, ends = self._table.texts("text", rows)
            width = self._table.at("width", rows)
            self._near.jaccards(data, ends, width, *places, _FACTOR, found[start : start + _PAIRS])
        return found


_FACTOR = np.uint32(0x9E3779B1)  # of shingles compared one by one: another hash than the signatures'


def _rows_of(pairs: Rows) -> tuple[Rows, Rows]:
    """Return the rows of pairs, rising, and the place of each pair's rows among them, [2, P]."""
    rows, places = np.unique(pairs, return_inverse=True)
    return rows, places.reshape(pairs.shape)
