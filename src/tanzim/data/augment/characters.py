"""Slips of the fingers and of a scanner, in English and Persian letters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from tanzim.data.augment.augmenter import Augmenter, bound
from tanzim.data.augment.config import AugmentCharactersConfig

# Rows of the US layout and of ISIRI 9147, and how far each row begins to the right, in keys.
_LAYOUTS = (
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("ضصثقفغعهخحجچ", "شسیبلاتنمکگ", "ظطزرذدپو"),
)
_SHIFTS = (0.0, 0.25, 0.75)
_RADIUS = 1.3  # keys between the middles of two that touch
# Letters that a scanner confuses: of like shape, and in Persian of like body with other dots.
_ALIKE = (
    *("o0", "O0", "l1I", "S5", "B8", "g9", "ec", "hb", "ft", "uv", "nh", "GC", "DO", "Z2"),
    *("بپتثن", "جچحخ", "دذ", "رزژ", "سش", "صض", "طظ", "عغ", "فق", "کگ", "ئی", "آا"),
)
_JOINED = {"m": "rn", "d": "cl", "w": "vv"}
_WORD = re.compile(r"\S+")
# Words that a program reads or a reader cannot restore: numbers, addresses, placeholders, markup.
_KEPT = re.compile(r"[\d@/\\<>{}\[\]_=#]")
_SHORTEST = 3  # letters of a word that may lose one


def _neighbours() -> dict[str, str]:
    near: dict[str, str] = {}
    for layout in _LAYOUTS:
        places = [
            (letter, column + shift, row)
            for row, (letters, shift) in enumerate(zip(layout, _SHIFTS, strict=True))
            for column, letter in enumerate(letters)
        ]
        for letter, x, y in places:
            near[letter] = "".join(
                other
                for other, u, v in places
                if other != letter and (x - u) ** 2 + (y - v) ** 2 <= _RADIUS**2
            )
    return near


NEIGHBOURS = _neighbours()
"""Letter → the letters of the keys around its key."""


def look_alikes() -> dict[str, list[str]]:
    """Return for each letter what a scanner may read instead of it."""
    alike: dict[str, list[str]] = {letter: [joined] for letter, joined in _JOINED.items()}
    for group in _ALIKE:
        for letter in group:
            if letter.isalpha():
                alike.setdefault(letter, []).extend(other for other in group if other != letter)
    return alike


_LOOK_ALIKES = look_alikes()


def slip(text: str, rng: Random, *, rate: float, operations: Sequence[str]) -> str:
    """Return a text with a few wrong letters.

    Numbers, addresses, placeholders and markup stay as they are. No letter is touched twice, nor two that
    stand side by side, so that each edit is one edit (a swap of two letters, a letter for two: at most 2).

    Args:
        text: any text.
        rng: where chance comes from.
        rate: share of the letters that may be touched.
        operations: of `AugmentCharactersConfig`.

    """
    places = [
        place
        for word in _WORD.finditer(text)
        if not _KEPT.search(word[0])
        for place in range(*word.span())
        if text[place].isalpha()
    ]
    if not places:
        return text
    chosen: list[int] = []
    for place in rng.sample(places, bound(rate, len(places))):
        if all(abs(place - other) > 1 for other in chosen):
            chosen.append(place)
    letters = list(text)
    for place in sorted(chosen, reverse=True):
        fitting = [found for one in operations if (found := _edits(text, place, one))]
        if fitting:
            start, end, new = rng.choice(rng.choice(fitting))
            letters[start:end] = new
    return "".join(letters)


def _edits(text: str, place: int, operation: str) -> list[tuple[int, int, str]]:
    """Return what an operation may do at a letter: (start, end, new text), the edits to choose from."""
    letter, after = text[place], text[place + 1 : place + 2]
    before = text[place - 1 : place] if place else ""
    if operation == "swap":
        fits = after.isalpha() and after != letter
        return [(place, place + 2, after + letter)] if fits else []
    if operation == "delete":
        word = before.isalpha() + after.isalpha() + (text[place + 2 : place + 3].isalpha())
        return [(place, place + 1, "")] if word >= _SHORTEST - 1 else []
    if operation == "ocr":
        return [(place, place + 1, other) for other in _LOOK_ALIKES.get(letter, ())]
    near = NEIGHBOURS.get(letter.lower(), "")
    cased = near.upper() if letter.isupper() else near
    end = place + 1
    return [(place if operation == "keyboard" else end, end, other) for other in cased]


class AugmentCharacters(Augmenter[AugmentCharactersConfig]):
    """Make copies with slips of the fingers and of a scanner."""

    def change(self, text: str, rng: Random) -> str:
        """Return the text with a few wrong letters."""
        return slip(text, rng, rate=self.config.rate, operations=self.config.operations)
