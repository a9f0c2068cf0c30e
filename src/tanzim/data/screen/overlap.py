"""Runs of words that training texts have in common with evaluation items (Brown et al., 2020, appendix C).

Legend: W words of a text · R runs of one length in the index · P places of such runs in items.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example
from tanzim.data.screen.checks import DIGITS
from tanzim.data.screen.evaluation import turns_of
from tanzim.data.similarity import digest, normalise

Hashes = npt.NDArray[np.uint64]
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# Scripts without spaces between words count by characters.
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words_in(text: str) -> list[str]:
    """Return the words of a text as they are compared.

    Case, punctuation, white space, diacritics, half-spaces, the scripts of digits, and Arabic letters in
    Persian make no difference.
    """
    text = normalise(text)
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        text = unicodedata.normalize("NFC", text).translate(DIGITS)
    return _WORD.findall(text)


@lru_cache(maxsize=1 << 18)
def _word(word: str) -> int:
    return digest(word)


def _runs(words_W: Hashes, length: int) -> Hashes:
    """Return a hash of each run of ``length`` words, [W - length + 1]."""
    count = max(len(words_W) - length + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for offset in range(length):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words_W[offset : offset + count]
    return hashes


def _hashed(words: Sequence[str]) -> Hashes:
    return np.fromiter(map(_word, words), np.uint64, len(words))


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn of an evaluation item that a training example shares.

    Args:
        item: number of the item.
        part: prompt or answer.
        coverage: share of the turn's words that lie in shared runs.

    """

    item: int
    part: str
    coverage: float


@dataclass(frozen=True, slots=True)
class _Table:
    """All runs of one length: sorted hashes [R], where the places of each start [R + 1], places [P, 2]."""

    keys_R: Hashes
    starts: npt.NDArray[np.int64]
    places_P2: npt.NDArray[np.int64]


class Overlap:
    """Finds evaluation items in texts.

    Args:
        items: the evaluation items.
        words: length of a run.
        shortest: a turn of fewer words than ``words`` counts by all of it from this length on; a still
            shorter prompt counts where it is a whole turn or line.
        common: runs that stand in more items than this are forms of words, and are left out.

    """

    def __init__(
        self, items: Sequence[Example], *, words: int = 13, shortest: int = 8, common: int = 3
    ) -> None:
        self._turns: list[tuple[int, str, int]] = []  # item, part, number of words
        self._whole: dict[int, list[int]] = defaultdict(list)
        runs: dict[int, list[tuple[Hashes, int]]] = defaultdict(list)
        for item, example in enumerate(items):
            for part, text in turns_of(example):
                found = words_in(text)
                length = min(words, len(found))
                if length >= shortest:
                    runs[length].append((_runs(_hashed(found), length), len(self._turns)))
                elif found and part == "prompt":
                    self._whole[digest(" ".join(found))].append(len(self._turns))
                else:
                    continue
                self._turns.append((item, part, len(found)))
        owners = np.array([item for item, _, _ in self._turns])
        self._tables = {length: _table(some, owners, common) for length, some in runs.items()}

    def find(self, example: Example, coverage: float = 0.0) -> list[Hit]:
        """Return the items that an example shares words with, the most covered first.

        Args:
            example: a training example.
            coverage: least share of a turn's words in shared runs.

        """
        covered: dict[int, set[int]] = defaultdict(set)
        for _, text in turns_of(example):
            found = words_in(text)
            if self._whole:
                self._find_whole(text, found, covered)
            words_W = _hashed(found)
            for length, table in self._tables.items():
                for turn, start in _shared(table, _runs(words_W, length)):
                    covered[turn].update(range(start, start + length))
        best: dict[int, Hit] = {}
        for turn, words in covered.items():
            item, part, length = self._turns[turn]
            hit = Hit(item, part, len(words) / length)
            if hit.coverage >= coverage and (item not in best or best[item].coverage < hit.coverage):
                best[item] = hit
        return sorted(best.values(), key=lambda hit: (-hit.coverage, hit.item))

    def _find_whole(self, text: str, found: list[str], covered: dict[int, set[int]]) -> None:
        pieces = [found, *(words_in(line) for line in text.splitlines() if "\n" in text)]
        for piece in pieces:
            for turn in self._whole.get(digest(" ".join(piece)), ()) if piece else ():
                covered[turn].update(range(self._turns[turn][2]))


def _table(runs: list[tuple[Hashes, int]], owners: npt.NDArray[np.int64], common: int) -> _Table:
    hashes = np.concatenate([one for one, _ in runs])
    turns = np.repeat([turn for _, turn in runs], [len(one) for one, _ in runs])
    places = np.concatenate([np.arange(len(one)) for one, _ in runs])
    order = np.lexsort((places, turns, hashes))
    hashes, turns, places = hashes[order], turns[order], places[order]
    _, run = np.unique(hashes, return_inverse=True)
    pairs = np.unique(np.stack([run, owners[turns]]), axis=1)
    rare = np.bincount(pairs[0])[run] <= common
    keys_R, starts = np.unique(hashes[rare], return_index=True)
    return _Table(
        keys_R,
        np.append(starts, int(rare.sum())),
        np.stack([turns[rare], places[rare]], axis=1).astype(np.int64),
    )


def _shared(table: _Table, hashes: Hashes) -> list[tuple[int, int]]:
    """Return (turn, first word) of each run of the table that is among ``hashes``."""
    if not len(table.keys_R) or not len(hashes):
        return []
    hashes = np.unique(hashes)
    at = np.minimum(np.searchsorted(table.keys_R, hashes), len(table.keys_R) - 1)
    at = at[table.keys_R[at] == hashes]
    return [
        (int(turn), int(start))
        for key in at
        for turn, start in table.places_P2[table.starts[key] : table.starts[key + 1]]
    ]
