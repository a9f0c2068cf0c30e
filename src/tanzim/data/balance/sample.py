"""More of what is rare, less of what is common (guide 3.1.3, technique 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tanzim.core.records import Example, Json, Progress
from tanzim.data.balance.classes import NONE, Codes, class_of, count_classes, read_classes, survey_classes
from tanzim.data.balance.config import OversampleConfig, UndersampleConfig
from tanzim.data.balance.counts import Counts, lowered, raised
from tanzim.data.step import Outcome, Removed, Survey, WholeStep


def repeats(codes: Codes, wanted: Counts, seed: int, *, most: int | None = None) -> npt.NDArray[np.int64]:
    """Return how often each example is to stand, [N]: of one class, none twice more than another.

    Args:
        codes: the class of each example, or `NONE`, [N].
        wanted: examples of each class in the result, [C].
        seed: chooses the ones that stand once more, or that stay.
        most: no example stands more often.

    """
    rng = np.random.default_rng(seed)
    times = np.ones(len(codes), np.int64)
    for code, target in enumerate(wanted):
        members = np.flatnonzero(codes == code)
        if not len(members):
            continue
        each, over = divmod(int(target), len(members))
        times[members] = each
        times[rng.permutation(members)[:over]] += 1
    return times if most is None else np.minimum(times, most)


class Oversample(WholeStep[OversampleConfig]):
    """Repeat the examples of rare classes; a copy has the same words, and "oversample k" for its origin.

    The copies of a class are spread evenly: unlike a draw with replacement, none is left out by chance.
    Examples without a class (conversations, words with tags) stay as they are.
    """

    training_only = True

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the class of each example."""
        survey_classes(examples, self.config.by, path)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write how often each example is to stand, [N]."""
        codes, names = read_classes(surveys)
        counts = count_classes(codes, names, "oversample")
        times = repeats(codes, raised(counts, self.config.ratio), self.seed, most=self.config.max_copies)
        _write(path, times)
        after = np.bincount(codes[codes != NONE], weights=times[codes != NONE], minlength=len(names))
        capped = [
            name
            for name, now, asked in zip(names, after, raised(counts, self.config.ratio), strict=True)
            if now < asked
        ]
        return {
            **before_and_after(names, counts, after.astype(np.int64)),
            **({"held back by max_copies": capped} if capped else {}),
        }

    @property
    def _how(self) -> str:
        """How a copy came about; two such steps, each by something else, call theirs by other names."""
        by = self.config.by
        return self.name if by == "label" else f"{self.name} {by.removeprefix('about.')}"

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Yield each example, and its copies after it."""
        times = np.load(path, mmap_mode="r")
        for number, example in enumerate(examples, first):
            yield example
            for copy in range(1, int(times[number])):
                self.counts[f"copies of {class_of(example, self.config.by)}"] += 1
                yield derived(example, f"{self._how} {copy}")


class Undersample(WholeStep[UndersampleConfig]):
    """Keep of each common class a part drawn by chance; examples without a class stay."""

    training_only = True

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the class of each example."""
        survey_classes(examples, self.config.by, path)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write whether each example stays (1) or not (0), [N]."""
        codes, names = read_classes(surveys)
        counts = count_classes(codes, names, "undersample")
        wanted = lowered(counts, self.config.ratio)
        _write(path, repeats(codes, wanted, self.seed))
        return before_and_after(names, counts, wanted)

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what was not drawn."""
        times = np.load(path, mmap_mode="r")
        for number, example in enumerate(examples, first):
            if times[number]:
                yield example
            else:
                yield Removed(
                    example, "one of a class that is too common", f"{class_of(example, self.config.by)}"
                )


def derived(example: Example, how: str) -> Example:
    """Return an example made out of another: the same row, and how it was made."""
    chain = f"{example.provenance.derived}, {how}" if example.provenance.derived else how
    return replace(example, provenance=replace(example.provenance, derived=chain))


def before_and_after(names: Sequence[str], before: Counts, after: Counts) -> Json:
    """Return the examples of each class as they were and as they are, for a report."""
    return {
        "before": dict(zip(names, before.tolist(), strict=True)),
        "after": dict(zip(names, after.tolist(), strict=True)),
    }


def _write(path: Path, times: npt.NDArray[np.int64]) -> None:
    with path.open("wb") as file:
        np.save(file, times.astype(np.uint32))
