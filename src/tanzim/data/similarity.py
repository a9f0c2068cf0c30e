"""How alike two examples are: character 5-grams, Jaccard similarity, and MinHash to find candidates.

Legend: S shingles of all documents in a block · N documents · K hash functions · B bands.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example, Message

WIDTH = 5  # characters in a shingle
HASHES = 126
BLOCK = 1 << 16  # shingles hashed at a time

Words = npt.NDArray[np.uint64]
_SAME = str.maketrans({"ي": "ی", "ك": "ک", "\u200c": " ", "\u200f": None, "\u200e": None, "ـ": None})


def normalise(text: str) -> str:
    """Return a text as it is compared (never as it is kept).

    Case, white space, Unicode's compatible forms, and Persian's double spellings (Arabic yeh and
    kaf, half-space or space, tatweel) make no difference.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_SAME)
    return " ".join(folded.split())


def _said(turn: Message) -> str:
    calls = [f"{call.name} {json.dumps(dict(call.arguments), sort_keys=True)}" for call in turn.tool_calls]
    return "\n".join([turn.content, *calls])


def compared(example: Example) -> tuple[str, str]:
    """Return the text of the whole example and that of its prompt alone, normalised.

    System prompts and tool definitions are left out: being shared by all, they would make
    everything alike. Of a text with labels, the text alone counts: it leaks whatever its labels.
    """
    if example.kind in ("text", "labelled", "tagged"):
        text = normalise(example.text)
        return text, text
    turns = [turn for turn in example.messages if turn.role != "system"]
    if example.kind == "pair":
        prompt = normalise("\n".join(map(_said, turns)))
        return normalise("\n".join([prompt, *map(_said, example.chosen)])), prompt
    prompt = normalise("\n".join(map(_said, turns[:-1])))
    return (f"{prompt} {normalise(_said(turns[-1]))}" if turns else ""), prompt


def digest(text: str) -> int:
    """Return a 64-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: Words) -> Words:
    """Scatter 64-bit values (the finaliser of SplitMix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shingles(text: str) -> Words:
    """Return a 64-bit hash of each run of five characters of a normalised text, in order.

    A shorter text is one shingle of its own.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if len(codes) < WIDTH:
        codes = np.concatenate([codes, np.full(WIDTH - len(codes), 1 << 21, np.uint64)])
    count = len(codes) - WIDTH + 1
    hashes = np.zeros(count, np.uint64)
    for offset in range(WIDTH):
        hashes = hashes * np.uint64(0x100000001B3) + codes[offset : offset + count]
    return _mix(hashes)


def jaccard(one: Words, two: Words) -> float:
    """Return the Jaccard similarity of two sets of shingles (given sorted and without repeats)."""
    both = np.concatenate([one, two])
    both.sort(kind="stable")  # merges two sorted runs: half the time of np.intersect1d
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(one) + len(two) - shared)


def bands_for(threshold: float) -> tuple[int, int]:
    """Return (bands, rows per band) that find a pair at ``threshold`` with probability ≥ 0.995.

    A pair of similarity s shares a band with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman and
    Ullman, Mining of Massive Datasets, 3.4); of the choices that find enough, the longest rows give
    the fewest false candidates.
    """
    for rows in (9, 7, 6, 3, 2):
        bands = HASHES // rows
        if 1 - (1 - threshold**rows) ** bands >= 0.995:
            return bands, rows
    return HASHES, 1


class MinHasher:
    """MinHash signatures (Broder, 1997) of many texts at a time.

    Args:
        seed: chooses the hash functions.

    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._factors = rng.integers(0, 1 << 32, HASHES, np.uint32) | np.uint32(1)
        self._terms = rng.integers(0, 1 << 32, HASHES, np.uint32)

    def signatures(self, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the signatures of normalised texts, [N, K]."""
        signatures_NK = np.full((len(texts), HASHES), 0xFFFFFFFF, np.uint32)
        parts: list[npt.NDArray[Any]] = []
        owners: list[int] = []
        size = 0
        for index, text in enumerate(texts):
            hashes = (shingles(text) >> np.uint64(32)).astype(np.uint32)
            for start in range(0, len(hashes), BLOCK):
                part = hashes[start : start + BLOCK]
                parts.append(part)
                owners.append(index)
                size += len(part)
                if size >= BLOCK:
                    self._lower(signatures_NK, parts, owners)
                    parts, owners, size = [], [], 0
        if parts:
            self._lower(signatures_NK, parts, owners)
        return signatures_NK

    def _lower(
        self, signatures_NK: npt.NDArray[np.uint32], parts: list[npt.NDArray[Any]], owners: list[int]
    ) -> None:
        hashes_S = np.concatenate(parts)
        starts = np.cumsum([0, *map(len, parts[:-1])])
        rows = np.array(owners)
        scratch_S = np.empty_like(hashes_S)
        for k in range(HASHES):
            np.multiply(hashes_S, self._factors[k], out=scratch_S)
            np.add(scratch_S, self._terms[k], out=scratch_S)
            # An owner stands twice only if its text is longer than a block: then at, not plain, minimum.
            np.minimum.at(signatures_NK[:, k], rows, np.minimum.reduceat(scratch_S, starts))


def band_keys(signatures_NK: npt.NDArray[np.uint32], bands: int, rows: int) -> Words:
    """Return a 64-bit key of each band of each signature, [N, B]: equal keys make candidates."""
    keys_NB = np.zeros((len(signatures_NK), bands), np.uint64)
    for row in range(rows):
        keys_NB = _mix(keys_NB * np.uint64(31) + signatures_NK[:, row : bands * rows : rows] + np.uint64(1))
    return keys_NB
