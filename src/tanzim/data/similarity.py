"""How alike two examples are: character 5-grams, Jaccard similarity, and MinHash to find candidates.

Legend: N texts · K places of a signature · B bands.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tanzim.core.errors import MissingExtra
from tanzim.core.optional import need
from tanzim.core.records import Example, Message

WIDTH = 5  # characters in a shingle
HASHES = 126
_EMPTY = np.uint32(0xFFFFFFFF)

Words = npt.NDArray[np.uint64]
# The letters and digits that the step `persian` unifies too, of those that Persian texts are full of.
_SAME = str.maketrans(
    {"ي": "ی", "ى": "ی", "ك": "ک", "\u200c": " ", "\u200f": None, "\u200e": None, "ـ": None}
    | {chr(0x660 + digit): chr(0x6F0 + digit) for digit in range(10)}
)


def normalise(text: str) -> str:
    """Return a text as it is compared (never as it is kept).

    Case, white space, Unicode's compatible forms, and Persian's double spellings (Arabic yeh,
    kaf and digits, half-space or space, tatweel) make no difference.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_SAME)
    return " ".join(folded.split())


def _said(turn: Message) -> str:
    calls = [f"{call.name} {json.dumps(dict(call.arguments), sort_keys=True)}" for call in turn.tool_calls]
    return "\n".join([turn.content, *calls])


def parts(example: Example) -> tuple[str, str]:
    """Return what of an example is compared, as it stands: its prompt, and what comes after it.

    System prompts and tool definitions are left out: being shared by all, they would make
    everything alike. Of a text with labels, the text alone counts, as a prompt: it leaks whatever its labels.
    """
    if example.kind in ("text", "labelled", "tagged"):
        return example.text, ""
    turns = [turn for turn in example.messages if turn.role != "system"]
    if example.kind == "pair":
        return "\n".join(map(_said, turns)), "\n".join(map(_said, (*example.chosen, *example.rejected)))
    return "\n".join(map(_said, turns[:-1])), _said(turns[-1]) if turns else ""


def compared(example: Example) -> tuple[str, str]:
    """Return the text of the whole example and that of its prompt alone, normalised (see `parts`)."""
    prompt, answer = parts(example)
    if example.kind in ("text", "labelled", "tagged"):
        prompt = normalise(prompt)
        return prompt, prompt
    if example.kind == "pair":
        prompt = normalise(prompt)
        return normalise(f"{prompt}\n{answer}"), prompt
    prompt = normalise(prompt)
    return (f"{prompt} {normalise(answer)}" if example.messages else ""), prompt


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


@dataclass(frozen=True, slots=True)
class Folded:
    """Normalised texts as code points: what all comparisons work on.

    Args:
        codes: code points, one text after another.
        ends: where each text begins and, at last, where all end, [N + 1].

    """

    codes: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def text(self, index: int) -> str:
        """Return one of them as a string."""
        part = self.codes[self.ends[index] : self.ends[index + 1]]
        return part.tobytes().decode("utf-32-le", "surrogatepass")


def as_codes(texts: Sequence[str]) -> Folded:
    """Put texts that are normalised already side by side."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    return Folded(np.frombuffer(joined, np.uint32), np.concatenate([[0], np.cumsum(lengths)]))


class MinHasher:
    """Signatures of many texts at a time whose places agree as often as the texts' shingles do.

    One hash throws each shingle into one of K bins, where the least one stays (one-permutation hashing; Li,
    Owen and Zhang, NIPS 2012); each bin left empty takes the least shingle by a hash of its own, as the
    last resort of fast similarity sketching does (Dahlgaard, Knudsen and Thorup, FOCS 2017,
    arXiv:1704.04370). Which shingle of two texts' union decides a bin has nothing to do with which text
    holds it, so that the share of equal places is an unbiased estimate of the Jaccard similarity, as with K
    hash functions (Broder, 1997), at about the price of one of them.

    Compiled by numba where the extra ``dedup`` is installed; else numpy gives the same signatures.

    Args:
        seed: chooses the hash functions.
        hashes: K, the places of a signature.

    """

    def __init__(self, seed: int, hashes: int = HASHES) -> None:
        rng = np.random.default_rng(seed)
        self.hashes = hashes
        self._factor = np.uint32(rng.integers(0, 1 << 32, dtype=np.uint32) | np.uint32(1))
        self._seeds = rng.integers(0, 1 << 32, hashes, np.uint32)

    def signatures(self, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the signatures of normalised texts, [N, K]."""
        return self.sketch(as_codes(texts))

    def sketch(self, folded: Folded) -> npt.NDArray[np.uint32]:
        """Return the signatures of texts, [N, K]."""
        signatures_NK = np.full((len(folded), self.hashes), _EMPTY, np.uint32)
        try:
            kernels = need("tanzim.data.dedup.kernels", "dedup")
        except MissingExtra:
            for text in range(len(folded)):
                self._sketch_one(folded.codes[folded.ends[text] : folded.ends[text + 1]], signatures_NK[text])
            return signatures_NK
        scratch = np.empty(max(WIDTH, int(np.diff(folded.ends).max(initial=0))), np.uint32)
        kernels.sketch(folded.codes, folded.ends, self._factor, self._seeds, scratch, signatures_NK)
        return signatures_NK

    def _sketch_one(self, codes: npt.NDArray[np.uint32], row: npt.NDArray[np.uint32]) -> None:
        """Write the signature of one text, [K]."""
        if len(codes) < WIDTH:
            codes = np.concatenate([codes, np.full(WIDTH - len(codes), 1 << 21, np.uint32)])
        hashes = np.zeros(len(codes) - WIDTH + 1, np.uint32)
        for offset in range(WIDTH):
            hashes = hashes * self._factor + codes[offset : offset + len(hashes)]
        hashes = _mix32(hashes)
        places = (hashes.astype(np.uint64) * np.uint64(self.hashes)) >> np.uint64(32)
        np.minimum.at(row, places, hashes)
        for place in np.flatnonzero(row == _EMPTY):
            row[place] = _mix32(hashes ^ self._seeds[place]).min()


def _mix32(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Scatter 32-bit values (Ellis, "lowbias32")."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x7FEB352D)
    values = (values ^ (values >> np.uint32(15))) * np.uint32(0x846CA68B)
    return values ^ (values >> np.uint32(16))


def band_keys(signatures_NK: npt.NDArray[np.uint32], bands: int, rows: int) -> Words:
    """Return a 64-bit key of each band of each signature, [N, B]: equal keys make candidates."""
    keys_NB = np.zeros((len(signatures_NK), bands), np.uint64)
    for row in range(rows):
        keys_NB = _mix(keys_NB * np.uint64(31) + signatures_NK[:, row : bands * rows : rows] + np.uint64(1))
    return keys_NB
