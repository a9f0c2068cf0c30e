"""The same example about other people: names, pronouns and places exchanged (perturbation for fairness)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from random import Random

from tanzim.core.records import Example, Role
from tanzim.data.augment.augmenter import Augmenter, draw_of, reword
from tanzim.data.augment.config import DemographicConfig
from tanzim.data.augment.people import NAMES, PAIRS, PLACES

_SAME = str.maketrans("يك", "یک")
# A word of letters; a half-space joins endings to it, which then are part of another word.
_WORD = re.compile(r"(?<![\w\u200c])[^\W\d_]+(?![\w\u200c])")
_OTHER = {"f": "m", "m": "f"}


@cache
def _names() -> dict[str, tuple[str, str]]:
    return {
        name: (language, gender)
        for language, genders in NAMES.items()
        for gender, names in genders.items()
        for name in names
    }


@cache
def _places() -> dict[str, str]:
    return {place: language for language, places in PLACES.items() for place in places}


@cache
def _pairs() -> dict[str, str]:
    both = [pair for pairs in PAIRS.values() for pair in pairs.items()]
    return {**dict(both), **{woman: man for man, woman in both}, "Ms": "Mr"}


class Swapper:
    """Exchanges people in the texts of one example, each always for the same other.

    With pronouns every name becomes one of the other gender, without them one of its own. "her" becomes
    "his" before a word and "him" elsewhere, and "his" becomes "hers" where nothing follows: what decides
    between them otherwise is the grammar of the sentence, so that some come out wrong ("I saw her run").

    Args:
        swap: of names, pronouns, places.
        rng: where chance comes from.

    """

    def __init__(self, swap: Sequence[str], rng: Random) -> None:
        self._swap, self._rng = frozenset(swap), rng
        self._chosen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """Return the text about other people."""
        return _WORD.sub(self._other, text)

    def _other(self, match: re.Match[str]) -> str:
        word = match[0]
        key = word.translate(_SAME)
        if "names" in self._swap and key in _names():
            language, gender = _names()[key]
            wanted = _OTHER[gender] if "pronouns" in self._swap else gender
            return self._pick(key, NAMES[language][wanted])
        if "places" in self._swap and key in _places():
            return self._pick(key, PLACES[_places()[key]])
        return _gendered(word, key, match) if "pronouns" in self._swap else word

    def _pick(self, key: str, others: Sequence[str]) -> str:
        """Return who stands for a name: never itself, and nobody who stands for another."""
        if key not in self._chosen:
            taken = set(self._chosen.values()) | {key}
            free = [other for other in others if other not in taken]
            self._chosen[key] = self._rng.choice(free or [one for one in others if one != key])
        return self._chosen[key]


def _gendered(word: str, key: str, match: re.Match[str]) -> str:
    small = key.lower()
    after = match.string[match.end() :]
    followed = re.match(r"[ \t]+[^\W\d_]", after) is not None
    special = {
        "her": "his" if followed else "him",
        "him": "her",
        "his": "her" if followed else "hers",
        "hers": "his",
    }
    new = special.get(small) or _pairs().get(key) or _pairs().get(small)
    if new is None:
        return word
    if word.isupper() and len(word) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if word[0].isupper() else new


class Demographic(Augmenter[DemographicConfig]):
    """Make copies about other people: everybody in an example is exchanged, or nobody.

    Unlike other augmenters it changes the answers too, which speak of the same people. An example whose
    system prompt names one of them is left alone, since a system prompt stays as it is.
    """

    roles: tuple[Role, ...] = ("user", "assistant")

    def copy(self, example: Example, copy: int) -> Example:
        """Return one copy about other people."""
        swapper = Swapper(self.config.swap, draw_of(self.seed, example, copy))
        for turn in example.messages:
            if turn.role == "system" and swapper(turn.content) != turn.content:
                return example
        swapper = Swapper(self.config.swap, draw_of(self.seed, example, copy))
        return reword(example, swapper, self.roles)
