"""A language model of word pairs in tables of fixed size: how surprising each text is.

Dirichlet smoothing of pairs by words (MacKay and Peto 1995) and of words by an even spread:
P(w | v) = (c(v,w) + μ·P(w)) / (c(v) + μ), P(w) = (c(w) + T/V) / (n + T) for T different words among n.

How much nearer a text is to a few others than to all is told by its words alone, those of the few smoothed by
those of all (Zhai and Lafferty 2004): a word that the few happen not to have says little.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tanzim.data.similarity import normalise

PLACES = 1 << 20  # V, the places words and pairs are hashed to
MU = 10.0  # how many pairs the words alone are worth
ALPHA = 2000.0  # how many words of a target all other texts are worth
_START, _END = np.uint32(1), np.uint32(2)
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of N texts, hashed.

    Args:
        words: one text after another, each closed by an end mark.
        ends: where each text begins and, at last, where all end, [N + 1].

    """

    words: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]

    def picked(self, mask_N: npt.NDArray[np.bool_]) -> Words:
        """Return the words of some texts."""
        lengths = np.diff(self.ends)
        ends = np.concatenate([[0], np.cumsum(lengths[mask_N])])
        return Words(self.words[np.repeat(mask_N, lengths)], ends)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the number of words of each text with its end mark, [N]."""
        return np.diff(self.ends)

    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the places of each word, of the word before it, and of the pair."""
        before = np.concatenate([[_START], self.words[:-1]]).astype(np.uint64)
        before[self.ends[:-1]] = _START
        word = self.words.astype(np.uint64)
        pair = (before * np.uint64(0x9E3779B97F4A7C15) + word) * np.uint64(0xBF58476D1CE4E5B9)
        places = (word % np.uint64(PLACES), before % np.uint64(PLACES), pair >> np.uint64(44))
        return places[0].astype(np.int64), places[1].astype(np.int64), places[2].astype(np.int64)


def hash_words(texts: Sequence[str]) -> Words:
    """Hash the words and marks of texts, normalised as for comparison."""
    each = [
        np.array([zlib.crc32(w.encode()) for w in _WORD.findall(normalise(text))] + [_END], np.uint32)
        for text in texts
    ]
    ends = np.concatenate([[0], np.cumsum([len(one) for one in each])]).astype(np.int64)
    return Words(np.concatenate([np.empty(0, np.uint32), *each]), ends)


class PairModel:
    """The model; its memory is three tables of 2²⁰ numbers (24 MiB), however much it learns from."""

    def __init__(self) -> None:
        self._word, self._before, self._pair = np.zeros(PLACES), np.zeros(PLACES), np.zeros(PLACES)

    @property
    def seen(self) -> int:
        """Words learnt from, end marks included."""
        return int(self._word.sum())

    def add(self, words: Words) -> None:
        """Learn from texts."""
        for table, places in zip((self._word, self._before, self._pair), words.pairs(), strict=True):
            np.add(table, np.bincount(places, minlength=PLACES), out=table)

    def nats(self, words: Words) -> npt.NDArray[np.float64]:
        """Return −ln P of each text per word, [N]; a model that has seen nothing holds all words alike."""
        word, before, pair = words.pairs()
        alone = self._alone(word)
        joint = (self._pair[pair] + MU * alone) / (self._before[before] + MU)
        return _means(-np.log(joint), words)

    def likelier(self, words: Words, everything: PairModel) -> npt.NDArray[np.float64]:
        """Return ln P(w)/P_all(w) of each text per word, [N].

        Here P(w) = (c(w) + α·P_all(w)) / (n + α), and ``everything`` must have learnt these n words, too.
        """
        word = words.pairs()[0]
        common = everything._alone(word)
        own = (self._word[word] + ALPHA * common) / (self.seen + ALPHA)
        return _means(np.log(own / common), words)

    def _alone(self, word: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        types, seen = max(int(np.count_nonzero(self._word)), 1), self._word.sum()
        return np.asarray((self._word[word] + types / PLACES) / (seen + types))


def _means(values: npt.NDArray[np.float64], words: Words) -> npt.NDArray[np.float64]:
    sums = np.add.reduceat(values, words.ends[:-1]) if len(words.ends) > 1 else np.empty(0)
    return np.asarray(sums / words.lengths())
