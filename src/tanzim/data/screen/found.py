"""A place in a text that is to be hidden; overlaps settled, masks put in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Something found in a text.

    Args:
        start: its first character.
        end: the one after its last.
        entity: what it is, such as EMAIL_ADDRESS.
        score: how sure that is, 0 to 1.

    """

    start: int
    end: int
    entity: str
    score: float


def settle(found: Iterable[Found]) -> list[Found]:
    """Return what does not overlap, in order: of two that do, the surer one, then the longer one stays."""
    kept: list[Found] = []
    for one in sorted(
        found, key=lambda f: (-f.score, f.start - f.end, f.start, not f.entity.startswith("IR_"))
    ):
        place = bisect_left(kept, one.start, key=lambda f: f.start)
        free_before = place == 0 or kept[place - 1].end <= one.start
        if free_before and (place == len(kept) or kept[place].start >= one.end):
            kept.insert(place, one)
    return kept


def replace(text: str, found: Sequence[Found], by: Callable[[Found, str], str]) -> str:
    """Write something else at each place.

    Args:
        text: the text.
        found: places in order, without overlaps.
        by: told a place and what stands there, returns what shall stand there.

    """
    parts, done = [], 0
    for one in found:
        parts += [text[done : one.start], by(one, text[one.start : one.end])]
        done = one.end
    return "".join([*parts, text[done:]])
