"""Compiled loops of the search for near duplicates: band keys, pairs, estimates, Jaccard, components.

Legend: N texts · K places of a signature · B bands · P pairs.
"""

# The loops take arrays and scalars of numpy, which numba tells apart by itself.
# ruff: noqa: ANN401

from __future__ import annotations

from typing import Any

import numpy as np

from tanzim.data.dedup.kernels import compiled, mix, shingle_hashes


@compiled
def band_words(signatures_NK: Any, rows: Any, first: Any, out_BM: Any) -> None:
    """Write for each band and text a word of 64 bits: the hash of the band's places, and the text's number.

    Args:
        signatures_NK: uint32 [N, K].
        rows: places of a band.
        first: number of the first text.
        out_BM: uint64 [B, M], written at [first, first + N).

    """
    for text in range(len(signatures_NK)):
        for band in range(len(out_BM)):
            key = np.uint32(band)
            for place in range(band * rows, (band + 1) * rows):
                key = mix(np.uint32(np.uint32(key * np.uint32(0x9E3779B1)) + signatures_NK[text, place]))
            out_BM[band, first + text] = np.uint64(key) << np.uint64(32) | np.uint64(first + text)


@compiled
def narrow(codes: Any, ends: Any, data: Any, places: Any, widths: Any) -> None:
    """Write texts with one, two or four bytes to a code point, as the widest of each needs.

    Args:
        codes: uint32, the texts one after another.
        ends: int64 [N + 1], where each begins.
        data: uint8, written.
        places: int64 [N + 1], written but for the first: where each begins in ``data``.
        widths: uint8 [N], written.

    """
    at = places[0]
    for text in range(len(ends) - 1):
        run = codes[ends[text] : ends[text + 1]]
        high = np.uint32(0)
        for index in range(len(run)):
            high |= run[index]
        out = data[at:]
        if high < 256:
            width = 1
            for index in range(len(run)):
                out[index] = run[index]
        elif high < 65536:
            width = 2
            for index in range(len(run)):
                out[2 * index] = run[index]
                out[2 * index + 1] = run[index] >> np.uint32(8)
        else:
            width = 4
            for index in range(len(run)):
                for part in range(4):
                    out[4 * index + part] = run[index] >> np.uint32(8 * part)
        at += width * len(run)
        places[text + 1] = at
        widths[text] = width


@compiled
def widen(data: Any, first: Any, stop: Any, width: Any, codes: Any) -> Any:
    """Undo `narrow` for one text; return how many code points it has."""
    count = (stop - first) // width
    run = data[first:stop]
    if width == 1:
        for index in range(count):
            codes[index] = run[index]
        return count
    for index in range(count):
        codes[index] = np.uint32(run[width * index]) | np.uint32(run[width * index + 1]) << np.uint32(8)
        if width == 4:
            codes[index] |= np.uint32(run[4 * index + 2]) << np.uint32(16)
    return count


@compiled
def root(parents: Any, row: Any) -> Any:
    """Return the root of a row's tree, which is its least member."""
    while parents[row] != row:
        row = parents[row]
    return row


@compiled
def join(parents: Any, left: Any, right: Any) -> None:
    """Join the trees of pairs of rows (union by least member, with path halving)."""
    for pair in range(len(left)):
        one, two = left[pair], right[pair]
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        while parents[two] != two:
            parents[two] = parents[parents[two]]
            two = parents[two]
        if one < two:
            parents[two] = one
        elif two < one:
            parents[one] = two


@compiled
def flatten(parents: Any) -> None:
    """Put each row right under its root; roots are the least members, so that one pass does it."""
    for row in range(len(parents)):
        parents[row] = parents[parents[row]]


@compiled
def neighbours(words: Any, parents: Any, near: Any, far: Any, left: Any, right: Any, crowded: Any) -> Any:
    """Write the pairs of rows in one run of equal keys that no tree joins yet; return how many.

    Args:
        words: uint64, sorted: the key in the upper half, the row in the lower.
        parents: uint32 [N], the trees.
        near: how far in a run the second of a pair stands behind the first, at least.
        far: at the most; with ``near`` 1, the run's first row is also paired with each.
        left: uint32 [P], written, in portions: the loop stops when it is full (see below).
        right: uint32 [P], written.
        crowded: int64 [2]: the word to begin at, and rows whose run is longer than ``far``; both are updated.

    """
    count, at = 0, crowded[0]
    start = at
    while (
        start > 0
        and start < len(words)
        and words[start - 1] >> np.uint64(32) == words[start] >> np.uint64(32)
    ):
        start -= 1
    while at < len(words):
        key = words[at] >> np.uint64(32)
        if at == start or words[start] >> np.uint64(32) != key:
            start = at
        if count + far + 1 > len(left):
            break
        row = np.uint32(words[at] & np.uint64(0xFFFFFFFF))
        mine = root(parents, row)
        lost = False
        for step in range(near, min(far, at - start) + 1):
            other = np.uint32(words[at - step] & np.uint64(0xFFFFFFFF))
            if root(parents, other) != mine:
                left[count], right[count] = other, row
                count += 1
        if at - start > far:
            other = np.uint32(words[start] & np.uint64(0xFFFFFFFF))
            if root(parents, other) != mine:
                if near == 1:
                    left[count], right[count] = other, row
                    count += 1
                else:
                    lost = True
        crowded[1] += lost
        at += 1
    crowded[0] = at
    return count


@compiled
def agreement(signatures_RK: Any, left: Any, right: Any, out: Any) -> None:
    """Write how many places of two rows' signatures are equal, [P]."""
    for pair in range(len(left)):
        one, two = signatures_RK[left[pair]], signatures_RK[right[pair]]
        same = 0
        for place in range(len(one)):
            same += one[place] == two[place]
        out[pair] = same


@compiled
def jaccards(data: Any, places: Any, widths: Any, left: Any, right: Any, factor: Any, out: Any) -> None:
    """Write the Jaccard similarity of the shingles of pairs of texts, [P].

    Args:
        data: uint8, texts as `narrow` wrote them.
        places: int64 [R + 1], where each begins.
        widths: uint8 [R], bytes to a code point of each.
        left: int64 [P], one text of each pair.
        right: int64 [P], the other.
        factor: of the shingles' polynomial, odd.
        out: float64 [P], written.

    """
    longest = 8
    for text in range(len(widths)):
        longest = max(longest, (places[text + 1] - places[text]) // widths[text])
    size = 16
    while size < 4 * longest:
        size *= 2
    # An open table of hashes; a word counts only with the number of the pair, so that nothing is cleared.
    table = np.zeros(size, np.uint64)
    codes, hashes = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    for pair in range(len(left)):
        first, both = np.uint64(2 * pair + 1) << np.uint64(32), np.uint64(2 * pair + 2) << np.uint64(32)
        counts = np.zeros(3, np.int64)  # of the one text, of the other alone, of both
        most, last = 0, np.uint32(15)
        for text in (left[pair], right[pair]):
            most += (places[text + 1] - places[text]) // widths[text]
        while last < 2 * most and last + 1 < size:
            last = np.uint32(2 * last + 1)
        for turn in range(2):
            text = left[pair] if turn == 0 else right[pair]
            length = widen(data, places[text], places[text + 1], widths[text], codes)
            for index in range(shingle_hashes(codes, 0, length, factor, hashes)):
                value = hashes[index]
                slot = value & last
                while True:
                    word = table[slot]
                    if word < first:
                        table[slot] = (first if turn == 0 else both) | np.uint64(value)
                        counts[turn] += 1
                        break
                    if np.uint32(word & np.uint64(0xFFFFFFFF)) == value:
                        if turn == 1 and word < both:
                            table[slot] = both | np.uint64(value)
                            counts[2] += 1
                        break
                    slot = (slot + np.uint32(1)) & last
        out[pair] = counts[2] / (counts[0] + counts[1])
