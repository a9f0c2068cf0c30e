"""Many texts at a time, normalised as `tanzim.data.similarity.normalise` does it.

A table says what becomes of each character by itself. It is enough for a text in which normalising (NFKC)
joins and reorders nothing; the few other texts are normalised one by one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import MissingExtra
from tanzim.core.optional import need
from tanzim.data.dedup.columns import pack_texts
from tanzim.data.dedup.marks import DELETED, HAMZA, MARK, SEVERAL, SLOW
from tanzim.data.similarity import Folded, as_codes, normalise

_HANGUL = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # joined by rule, not by table


def fold_texts(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> Folded:
    """Normalise texts.

    Args:
        data: the texts in UTF-8, one after another.
        starts: where each begins and, at last, where all end, [N + 1].

    Raises:
        MissingExtra: numba is not installed.

    """
    kernels = need("tanzim.data.dedup.kernels", "dedup")
    count = len(starts) - 1
    codes = np.empty(int(starts[-1] - starts[0]) + 1, np.uint32)
    ends, slow = np.empty(count + 1, np.int64), np.empty(count, np.bool_)
    used = kernels.fold(data, starts, *fold_table(), codes, ends, slow)
    if not slow.any():
        return Folded(codes[:used], ends)
    return _with_slow(data, starts, Folded(codes, ends), slow)


def fold_list(texts: Sequence[str]) -> Folded:
    """Normalise texts; without numba one by one, with the same result."""
    try:
        return fold_texts(*pack_texts(texts))
    except MissingExtra:
        return as_codes([normalise(text) for text in texts])


def _with_slow(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], folded: Folded, slow: npt.NDArray[np.bool_]
) -> Folded:
    """Put in the texts that the table is not enough for."""
    parts: list[Any] = []
    lengths = np.diff(folded.ends)
    done = 0
    for text in np.flatnonzero(slow).tolist():
        parts.append(folded.codes[done : folded.ends[text]])
        done = int(folded.ends[text])
        said = normalise(data[starts[text] : starts[text + 1]].tobytes().decode("utf-8", "surrogatepass"))
        parts.append(np.frombuffer(said.encode("utf-32-le", "surrogatepass"), np.uint32))
        lengths[text] = len(said)
    parts.append(folded.codes[done : folded.ends[-1]])
    return Folded(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)]))


@cache
def fold_table() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return what becomes of each character of the basic plane, [65536], and of some several ones, [E, 3].

    A code point; ``SEVERAL`` and a row of the second table; a code point and ``MARK`` for a mark that joins
    nothing but what `_alone` of the kernels knows; ``DELETED``; or ``SLOW``.
    """
    joined = set(_HANGUL)
    for code in range(65536):
        found = unicodedata.decomposition(chr(code))
        if found and not found.startswith("<") and " " in found:
            joined.add(int(found.split()[1], 16))
    joined.difference_update(range(HAMZA[0], HAMZA[1] + 1))
    table, several = np.full(65536, SLOW, np.uint32), [[0, 0, 0]]
    for code in range(65536):
        if not 0xD800 <= code < 0xE000:
            table[code] = _entry(chr(code), joined, several)
    return table, np.array(several, np.uint32)


def _entry(character: str, joined: set[int], several: list[list[int]]) -> int:
    plain = unicodedata.normalize("NFKC", character)
    # Between two letters white space shows as a space, and what is deleted as nothing.
    folded = normalise(f"a{character}a")[1:-1]
    if any(ord(part) in joined for part in plain):
        return SLOW
    if not folded:
        return DELETED
    if len(plain) == len(folded) == 1:
        return ord(folded) + (MARK if unicodedata.combining(plain) else 0)
    # What becomes more characters than it has bytes would not fit in.
    if len(folded) > len(character.encode()) or " " in folded or any(map(unicodedata.combining, plain)):
        return SLOW
    several.append([*map(ord, folded), *[0] * (3 - len(folded))])
    return SEVERAL + len(several) - 1
