"""What a corpus itself says of its words: how often each stands, and how its compounds are written.

Texts that use half-spaces decide how doubtful pairs are written (به‌طور or به طور); how often words stand
alone decides how glued ones are parted (مرحلهای is مرحله‌ای, since مرحله is common and مرحل is not a word).
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.data.clean.persian.letters import letter_pairs, replaced, shapes_to_letters, without_kashida
from tanzim.data.clean.persian.script import LETTERS, ZWNJ, is_persian

_RUN = re.compile(f"[{LETTERS}]+(?:{ZWNJ}[{LETTERS}]+)*")
_CLAUSE = re.compile(f"[^{LETTERS}{ZWNJ} ]+")
_PAIRS = letter_pairs(True, "keep")
KEPT = 300_000  # entries of each kind: the rarest go first


@dataclass
class Lexicon:
    """Counts of a corpus.

    Args:
        words: letters between spaces or half-spaces → times seen.
        halves: pair with a half-space (کتاب‌ها) → times seen.
        spaced: the same pairs with a space (key with a half-space) → times seen in texts that use
            half-spaces.

    """

    words: Counter[str] = field(default_factory=Counter)
    halves: Counter[str] = field(default_factory=Counter)
    spaced: Counter[str] = field(default_factory=Counter)

    def add(self, other: Lexicon) -> None:
        """Add the counts of another part of the corpus."""
        self.words.update(other.words)
        self.halves.update(other.halves)
        self.spaced.update(other.spaced)

    def trimmed(self) -> Lexicon:
        """Return the lexicon without what was seen once, and no larger than it needs to be."""
        halves = Counter({p: n for p, n in self.halves.most_common(KEPT) if n > 1})
        return Lexicon(
            Counter({w: n for w, n in self.words.most_common(KEPT) if n > 1}),
            halves,
            Counter({pair: n for pair, n in self.spaced.items() if pair in halves}),
        )

    def joined(self, first: str, second: str) -> bool | None:
        """Say whether the corpus writes two words with a half-space; None where it does not tell."""
        pair = f"{first}{ZWNJ}{second}"
        half, spaced = self.halves[pair], self.spaced[pair]
        if half + spaced < 3:
            return None
        return half > spaced

    def glued(self, word: str) -> str | None:
        """Return how the corpus writes a glued word where that is with a half-space, else None."""
        best, most = None, max(1, self.words[word])
        for cut in range(1, len(word)):
            pair = f"{word[:cut]}{ZWNJ}{word[cut:]}"
            if self.halves[pair] > most:
                best, most = pair, self.halves[pair]
        return best

    def save(self, path: Path) -> None:
        """Write the lexicon as JSON."""
        value = {"words": self.words, "halves": self.halves, "spaced": self.spaced}
        path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Read what `save` wrote.

        Raises:
            DataError: the file is not one.

        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(*(Counter({str(k): int(v) for k, v in value[name].items()}) for name in
                         ("words", "halves", "spaced")))  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this is no Persian lexicon: {error}", where=str(path), fix="learn it anew from the corpus"
            ) from error


def learn(texts: Iterable[str]) -> Lexicon:
    """Count the words of the Persian texts among ``texts``."""
    words: Counter[str] = Counter()
    halves: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for text in texts:
        if not is_persian(text):
            continue
        plain = without_kashida(replaced(shapes_to_letters(text), _PAIRS))
        spaced = ZWNJ in plain
        for clause in _CLAUSE.split(plain):
            last = ""
            for run in _RUN.findall(clause):
                parts = run.split(ZWNJ)
                words.update(parts)
                halves.update(map(ZWNJ.join, itertools.pairwise(parts)))
                if spaced and last:
                    pairs[f"{last}{ZWNJ}{parts[0]}"] += 1
                last = parts[-1]
    return Lexicon(words, halves, Counter({pair: n for pair, n in pairs.items() if pair in halves}))
