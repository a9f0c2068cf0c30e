"""Texts that repeat one of a few others, found by the letters they share."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tanzim.data.similarity import normalise, shingles


class Known:
    """A few texts, to find those among many that repeat one of them.

    Args:
        most: Jaccard similarity of the 5-grams of letters from which two texts say the same.

    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._sizes: dict[str, int] = {}
        self._holders: dict[int, set[str]] = {}

    def add(self, text: str) -> str:
        """Take a text in; return it as it is compared."""
        folded, own = _grams(text)
        self._sizes[folded] = len(own)
        for gram in own:
            self._holders.setdefault(gram, set()).add(folded)
        return folded

    def remove(self, folded: str) -> None:
        """Forget a text, given as it is compared."""
        del self._sizes[folded]
        for holders in self._holders.values():
            holders.discard(folded)

    def repeated(self, text: str) -> str | None:
        """Return the text, as it is compared, that this one repeats most; None if it repeats none."""
        _, own = _grams(text)
        shared = Counter(holder for gram in own for holder in self._holders.get(gram, ()))
        alike = {one: n / (len(own) + self._sizes[one] - n) for one, n in shared.items()}
        best = max(alike, key=lambda one: (alike[one], one), default=None)
        return best if best is not None and alike[best] >= self._most else None


def _grams(text: str) -> tuple[str, list[int]]:
    folded = normalise(text)
    return folded, np.unique(shingles(folded)).tolist()
