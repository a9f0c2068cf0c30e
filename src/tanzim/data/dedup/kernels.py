"""The inner loops of comparing texts, compiled by numba; each works without the interpreter's lock.

Legend: N texts · K places of a signature · P pairs. What the loops compute is said where they are called
(`tanzim.data.dedup.fold`, `tanzim.data.similarity`, `tanzim.data.dedup.near`).
"""

# The loops take arrays and scalars of numpy, which numba tells apart by itself.
# ruff: noqa: ANN401

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from tanzim.data.dedup.marks import ARABIC, DELETED, HAMZA, IDENTITY, JOINED_BY_HAMZA, MARK, SEVERAL, SLOW

F = TypeVar("F", bound=Callable[..., Any])

_SPACE = np.uint32(32)
_EMPTY = np.uint32(0xFFFFFFFF)
_PAD = np.uint32(1 << 21)  # beyond all code points
_SEVERAL, _MARK, _DELETED, _SLOW = (np.uint32(value) for value in (SEVERAL, MARK, DELETED, SLOW))
_CODE = np.uint32(SEVERAL - 1)
_HAMZA, _ARABIC, _JOINED_BY_HAMZA = HAMZA, ARABIC, JOINED_BY_HAMZA
_FIRST, _LAST = np.uint32(IDENTITY[0]), np.uint32(IDENTITY[1])


def compiled(function: F) -> F:
    """Compile a function once and for all; it does not hold the interpreter's lock."""
    made: Any = numba.njit(nogil=True, cache=True)(function)
    return cast("F", made)


@compiled
def _decode(data: Any, place: Any) -> Any:
    """Return the code point of several UTF-8 bytes at a place, and the place after them."""
    byte, six = np.uint32(data[place]), np.uint32(0x3F)
    code = np.uint32(data[place + 1]) & six
    if byte < 0xE0:
        return (byte & np.uint32(0x1F)) << np.uint32(6) | code, place + 2
    code = code << np.uint32(6) | np.uint32(data[place + 2]) & six
    if byte < 0xF0:
        return (byte & np.uint32(0x0F)) << np.uint32(12) | code, place + 3
    code = code << np.uint32(6) | np.uint32(data[place + 3]) & six
    return (byte & np.uint32(0x07)) << np.uint32(18) | code, place + 4


@compiled
def _alone(code: Any, before: Any) -> Any:
    """Tell whether a mark cannot join the character before it."""
    if not _HAMZA[0] <= code <= _HAMZA[1]:
        return True
    return _ARABIC[0] <= before <= _ARABIC[1] and before not in _JOINED_BY_HAMZA


@compiled
def _fold_one(data: Any, place: Any, stop: Any, table: Any, several: Any, codes: Any, at: Any) -> Any:
    """Normalise one text (see `fold`); return where it ends in ``codes``, or -1 if it is a slow one."""
    last, before, after_mark = _SPACE, _SPACE, False
    while place < stop:
        code = np.uint32(data[place])
        if code < 0x80:
            value = table[code]
            place += 1
        else:
            code, place = _decode(data, place)
            value = _SLOW
            if code < 65536:
                value = table[code]
            elif _FIRST <= code <= _LAST:
                value = code
        if value < _SEVERAL:
            after_mark = False
            codes[at] = value
            at += (value != _SPACE) | (last != _SPACE)  # of several spaces, none moves on but the first
            last = value
        elif value < _MARK:
            after_mark = False
            for last in several[value & _CODE]:
                codes[at] = last
                at += last != 0
        elif value < _DELETED:
            if after_mark or not _alone(code, before):
                return -1
            after_mark = True
            last = value & _CODE
            codes[at] = last
            at += 1
        elif value < _SLOW:
            after_mark = False
        else:
            return -1
        before = code
    return at


@compiled
def _is_space(byte: Any) -> Any:
    return (byte == 32) | ((byte >= 9) & (byte <= 13)) | ((byte >= 28) & (byte <= 31))


@compiled
def _fold_ascii(data: Any, place: Any, stop: Any, table: Any, codes: Any, at: Any) -> Any:
    """Normalise one text of ASCII characters; return where it ends in ``codes``."""
    run, out = data[place:stop], codes[at:]
    doubled = len(run) > 0 and _is_space(run[0])
    for index in range(1, len(run)):
        doubled |= _is_space(run[index]) & _is_space(run[index - 1])
    if not doubled:  # the usual case, in which every byte keeps its place
        for index in range(len(run)):
            byte = np.uint32(run[index])
            capital = (byte >= 65) & (byte <= 90)
            out[index] = (
                _SPACE if _is_space(run[index]) else byte + (np.uint32(32) if capital else np.uint32(0))
            )
        return at + len(run)
    last = _SPACE
    for index in range(place, stop):
        value = table[data[index]]
        codes[at] = value
        at += (value != _SPACE) | (last != _SPACE)
        last = value
    return at


@compiled
def fold(data: Any, starts: Any, table: Any, several: Any, codes: Any, ends: Any, slow: Any) -> Any:
    """Normalise UTF-8 texts; return how many code points were written.

    Args:
        data: uint8, the texts.
        starts: int64 [N + 1], where each begins.
        table: uint32 [65536], see `tanzim.data.dedup.fold`.
        several: uint32 [E, 3], what characters that become several ones become, filled up with 0.
        codes: uint32, written: the normalised texts one after another; one longer than ``data``.
        ends: int64 [N + 1], written: where each begins in ``codes``.
        slow: bool [N], written: texts that this loop cannot normalise; nothing is written of them.

    """
    at = 0
    ends[0] = 0
    for text in range(len(starts) - 1):
        first, place, stop = at, starts[text], starts[text + 1]
        high = np.uint8(0)
        for index in range(place, stop):
            high |= data[index]
        if high < 0x80:
            at = _fold_ascii(data, place, stop, table, codes, at)
        else:
            at = _fold_one(data, place, stop, table, several, codes, at)
        slow[text] = at < 0
        if at < 0:
            at = first
        elif at > first and codes[at - 1] == _SPACE:
            at -= 1
        ends[text + 1] = at
    return at


@compiled
def mix(value: Any) -> Any:
    """Scatter a 32-bit value (Ellis, "lowbias32")."""
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D))
    value = np.uint32(np.uint32(value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def shingle_hashes(codes: Any, first: Any, stop: Any, factor: Any, out: Any) -> Any:
    """Write a 32-bit hash of each run of five codes; a shorter text is one run. Return how many."""
    size = stop - first
    if size < 5:
        value = np.uint32(0)
        for index in range(5):
            code = np.uint32(codes[first + index]) if index < size else _PAD
            value = np.uint32(np.uint32(value * factor) + code)
        out[0] = mix(value)
        return 1
    run = codes[first:stop]
    for index in range(size - 4):
        value = np.uint32(np.uint32(run[index]) * factor)
        value = np.uint32(np.uint32(value + np.uint32(run[index + 1])) * factor)
        value = np.uint32(np.uint32(value + np.uint32(run[index + 2])) * factor)
        value = np.uint32(np.uint32(value + np.uint32(run[index + 3])) * factor)
        out[index] = mix(np.uint32(value + np.uint32(run[index + 4])))
    return size - 4


@compiled
def _least(hashes: Any, seed: Any) -> Any:
    """Return the least of all hashes, hashed again."""
    least = _EMPTY
    for index in range(len(hashes)):
        least = min(least, mix(np.uint32(hashes[index] ^ seed)))
    return least


@compiled
def sketch(codes: Any, ends: Any, factor: Any, seeds: Any, scratch: Any, signatures_NK: Any) -> None:
    """Write the signatures of normalised texts (see `tanzim.data.similarity.MinHasher`).

    Args:
        codes: uint32, the texts one after another.
        ends: int64 [N + 1], where each begins.
        factor: of the shingles' polynomial, odd.
        seeds: uint32 [K], one for each bin.
        scratch: uint32, as long as the longest text.
        signatures_NK: uint32 [N, K], written.

    """
    bins = signatures_NK.shape[1]
    for text in range(len(ends) - 1):
        count = shingle_hashes(codes, ends[text], ends[text + 1], factor, scratch)
        row = signatures_NK[text]
        row[:] = _EMPTY
        for index in range(count):
            value = scratch[index]
            chosen = (np.uint64(value) * np.uint64(bins)) >> np.uint64(32)
            row[chosen] = min(row[chosen], value)
        for place in range(bins):
            if row[place] == _EMPTY:
                row[place] = _least(scratch[:count], seeds[place])
