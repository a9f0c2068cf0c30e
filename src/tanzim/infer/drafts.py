"""Drafts: tokens that may come next, guessed without the model from what a sequence holds already.

Its last tokens are looked up in what stands before them, prompt and answer alike; what followed there may
follow here (prompt lookup decoding, Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding).
Where a grammar leaves one way to go on, that comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tanzim.infer.grammar import Matcher

MOST = 8  # tokens of a draft
LENGTHS = 4, 2  # tokens looked up: so many first, then so few
LONGEST = 8  # tokens compared, to judge how much a place found is worth
MISS = 0.8  # a place that agrees in n tokens goes on otherwise with a chance of MISS to the n-th
FORCED = 0.98  # chance of what a grammar forces: the model may cut it into other tokens
DOUBT = 4.0  # tokens of its own that weigh as much, in a sequence's record, as what is so of all
DECAY = 0.9  # what the record keeps of itself from one draft to the next
REST = 0.99  # and from one pass without a draft: in time it is tried again


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess.

    Args:
        tokens: what may come next.
        chances: of each, that it comes and all before it.
        forced: how many of them the grammar forces.

    """

    tokens: list[int]
    chances: list[float]
    forced: int = 0

    def first(self, count: int) -> Draft:
        """Return its beginning."""
        return Draft(self.tokens[:count], self.chances[:count], min(self.forced, count))


NOTHING = Draft([], [])


class Drafter:
    """Guesses for one sequence, and remembers how often it was right.

    Args:
        ids: the sequence's tokens, prompt and answer, which grow.
        matcher: follows its grammar.

    """

    def __init__(self, ids: Sequence[int], matcher: Matcher | None = None) -> None:
        self._ids, self._matcher = ids, matcher
        self._places: list[dict[tuple[int, ...], int]] = [{} for _ in LENGTHS]
        self._seen = 0  # tokens before which all places are known
        self._right = self._tried = 0.0

    def draft(self, most: int, least: float = 0.0) -> Draft:
        """Return a guess of at most ``most`` tokens (and `MOST`) whose chances are above ``least``."""
        most = min(most, MOST)
        if most < 1:
            return NOTHING
        self._learn_places()
        tokens = [] if self._matcher is None else self._matcher.forced()[:most]
        forced = len(tokens)
        chances = [FORCED ** (number + 1) for number in range(forced)]
        place, agreeing = self._find(tokens)
        if agreeing:
            chance = (self._right + DOUBT * (1 - MISS**agreeing)) / (self._tried + DOUBT)
            known = len(self._ids)
            whole = (chances[-1] if forced else 1.0) * chance
            for where in range(place, place + most - forced):  # runs on into the draft: what repeats goes on
                if whole <= least:
                    break
                tokens.append(self._ids[where] if where < known else tokens[where - known])
                chances.append(whole)
                whole *= chance
        return Draft(tokens, chances, forced)

    def learn(self, draft: Draft, right: int) -> None:
        """Note what became of a draft.

        Args:
            draft: as it was computed; it may be empty.
            right: how many of its tokens came.

        """
        tried = min(right + 1, len(draft.tokens)) - draft.forced
        if tried < 1:
            self._right, self._tried = self._right * REST, self._tried * REST
            return
        self._right = self._right * DECAY + right - draft.forced
        self._tried = self._tried * DECAY + tried

    def _learn_places(self) -> None:
        """Note what stands before each token but the next, the latest place counting."""
        ids, end = self._ids, len(self._ids)
        for length, places in zip(LENGTHS, self._places, strict=True):
            first = max(self._seen, length)
            if first >= end:
                continue
            runs = zip(*(ids[first - length + i : end - length + i] for i in range(length)), strict=True)
            places.update(zip(runs, range(first, end), strict=True))
        self._seen = end

    def _find(self, tokens: list[int]) -> tuple[int, int]:
        """Return a place whose token may follow all there is and ``tokens``; and how many agree before it."""
        last = [*self._ids[-LONGEST:], *tokens][-LONGEST:]
        for length, places in zip(LENGTHS, self._places, strict=True):
            place = places.get(tuple(last[-length:])) if len(last) >= length else None
            if place is not None:
                before = self._ids[max(0, place - LONGEST) : place]
                agreeing = length
                while agreeing < min(len(before), len(last)) and before[-agreeing - 1] == last[-agreeing - 1]:
                    agreeing += 1
                return place, agreeing
        return 0, 0
