"""A step of stage 1: examples in, examples out, and a reason for each one that is taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from tanzim.core.config import Section
from tanzim.core.powers import Powers
from tanzim.core.records import Example, Json, Progress

ConfigT = TypeVar("ConfigT", bound=Section)


@dataclass(frozen=True, slots=True)
class Removed:
    """An example that a step takes out.

    Args:
        example: the example as it came in.
        reason: the same words for every example that is taken out for it.
        detail: what is particular to this one: a number, the example it repeats.

    """

    example: Example
    reason: str
    detail: str = ""


Outcome = Example | Removed


class Step(Generic[ConfigT]):
    """A step that can judge an example without having seen all others.

    Every example that comes in must come out: as it is, changed (with the same provenance) or as
    `Removed`; the chain stops a step that loses one. New examples have a ``derived`` in their provenance.

    Attributes:
        parallel: whether it may run in several processes; False where it uses a power.
        training_only: whether it must leave held-out examples alone; it then runs after the split.
        private: whether it hides what came in, so that reports must not show it.
        name: its type, with a number where it is not the first of that type; what it makes is called so.
        counts: what it saw, for the report, such as {"e-mail address": 3}; summed over all shards.

    """

    parallel: ClassVar[bool] = True
    training_only: ClassVar[bool] = False
    private: ClassVar[bool] = False

    def __init__(self, config: ConfigT, powers: Powers, seed: int) -> None:
        self.config, self.powers, self.seed = config, powers, seed
        self.name: str = getattr(config, "type", "")
        self.counts: Counter[str] = Counter()

    @classmethod
    def outside(cls, config: ConfigT) -> list[str]:
        """Return fingerprints of what the config only names (a file, a key in the environment).

        They are part of the cache key: with other content there, the step runs again.
        """
        del config
        return []

    def apply(self, examples: Iterable[Example]) -> Iterator[Outcome]:
        """Yield what becomes of each example."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Survey:
    """What `WholeStep.survey` wrote of one shard.

    Args:
        path: the file it wrote.
        rows: examples of the shard.
        origin: 0 for examples to be split (or trained on), 1 for validation, 2 for test.

    """

    path: Path
    rows: int
    origin: int


class WholeStep(Step[ConfigT]):
    """A step that must see all examples before it can judge one: survey, decide, judge.

    Surveys and judgements run shard by shard, in several processes; what passes between them lies in files,
    so that memory does not grow with the number of examples and an interrupted step goes on.
    """

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write what is needed of one shard to ``path``."""
        raise NotImplementedError

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Decide over all examples, in the order of ``surveys``; write the verdict to ``path``.

        Returns:
            What the report says of it.

        """
        raise NotImplementedError

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield what becomes of each example of a shard.

        Args:
            examples: those of the shard.
            path: the verdict.
            first: number of the shard's first example among all, counted from 0.

        """
        raise NotImplementedError
