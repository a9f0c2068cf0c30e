"""What all augmenters share: which examples they take, which of their texts they change, and how often.

Changed is what is read: a text, a text with labels, and what users say. What a model is to answer stays
(the label, the assistant's turns, both sides of a pair), and so do system prompts. Left alone as a whole are
tagged words (each has its tag) and conversations with tool calls (a program's arguments repeat the user's
words).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import TypeVar

from tanzim.core.records import Example, Message, Role
from tanzim.core.seeds import derive
from tanzim.data.augment.config import (
    AugmentCharactersConfig,
    AugmentConfig,
    AugmentSentencesConfig,
    AugmentWordsConfig,
    DemographicConfig,
)
from tanzim.data.balance.sample import derived
from tanzim.data.step import Outcome, Step

ConfigT = TypeVar(
    "ConfigT", AugmentCharactersConfig, AugmentWordsConfig, AugmentSentencesConfig, DemographicConfig
)
Change = Callable[[str], str]


def open_to_change(example: Example) -> bool:
    """Tell whether an example may get changed copies."""
    if example.kind == "tagged":
        return False
    return not any(turn.role == "tool" or turn.tool_calls for turn in example.turns)


def reword(example: Example, change: Change, roles: tuple[Role, ...] = ("user",)) -> Example:
    """Return the example with its text and the turns of ``roles`` changed.

    Args:
        example: any example.
        change: text → text.
        roles: of the turns that are changed; answers of a pair are turns of the assistant.

    """

    def turns(old: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(
            replace(turn, content=change(turn.content), thinking=turn.thinking and change(turn.thinking))
            if turn.role in roles and turn.content.strip()
            else turn
            for turn in old
        )

    return replace(
        example,
        text=change(example.text) if example.text.strip() else example.text,
        messages=turns(example.messages),
        chosen=turns(example.chosen),
        rejected=turns(example.rejected),
    )


def draw_of(seed: int, example: Example, *names: str | int) -> Random:
    """Return the random numbers of one example: the same whatever else is in the data."""
    return Random(derive(seed, str(example.provenance), *names))


def bound(rate: float, size: int) -> int:
    """Return how many of ``size`` things may be touched at a rate: one at least, if there is one."""
    return min(size, max(1, int(rate * size)))


def repeated(example: Example, config: AugmentConfig, how: str) -> Example | None:
    """Return the example itself in place of a copy that cannot be made, so that classes stay even."""
    return derived(example, f"{how}, as it is") if config.even and example.kind == "labelled" else None


class Augmenter(Step[ConfigT]):
    """Yields each example, and after it copies with other words; their origin says "<type> k".

    A copy that came out as the example itself, or as another copy, is not kept but counted.
    """

    training_only = True
    roles: tuple[Role, ...] = ("user",)

    def change(self, text: str, rng: Random) -> str:
        """Return a text with other words (or the same, where nothing fits)."""
        raise NotImplementedError

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield each example, and its copies after it."""
        for example in examples:
            yield example
            yield from self.copies(example)

    def copies(self, example: Example) -> Iterator[Example]:
        """Yield the changed copies of one example."""
        if not open_to_change(example):
            self.counts["left alone: tagged words or tool calls"] += 1
            return
        if draw_of(self.seed, example).random() >= self.config.share:
            return
        seen = [example]
        for copy in range(1, self.config.copies + 1):
            new = self.copy(example, copy)
            if new in seen:
                self.counts["came out the same"] += 1
                yield from self.instead(example, copy)
                continue
            seen.append(new)
            self.counts["made"] += 1
            yield derived(new, f"{self.name} {copy}")

    def instead(self, example: Example, copy: int) -> Iterator[Example]:
        """Yield what stands in for a copy that cannot be made."""
        if again := repeated(example, self.config, f"{self.name} {copy}"):
            self.counts["repeated as it is"] += 1
            yield again

    def copy(self, example: Example, copy: int) -> Example:
        """Return one changed copy, its origin still that of the example."""
        rng = draw_of(self.seed, example, copy)
        return reword(example, lambda text: self.change(text, rng), self.roles)
