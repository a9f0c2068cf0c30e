"""Exact duplicates: the same text, once case, white space and double spellings are put aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tanzim.core.records import Example, Json, Progress
from tanzim.data.dedup.config import DedupExactConfig
from tanzim.data.similarity import compared, digest
from tanzim.data.step import Outcome, Removed, Survey, WholeStep


class DedupExact(WholeStep[DedupExactConfig]):
    """Of examples that are the same keep one: a held-out one, else the first."""

    def survey(self, examples: Iterable[Example], path: Path) -> None:
        """Write the hash of each example, [N]."""
        place = 0 if self.config.by == "example" else 1
        hashes = np.fromiter((digest(compared(example)[place]) for example in examples), np.uint64)
        with path.open("wb") as file:
            np.save(file, hashes)

    def decide(self, surveys: Sequence[Survey], path: Path, progress: Progress) -> Json:
        """Write for each example the number of the one that is kept in its place, or -1, [N]."""
        hashes = np.concatenate([np.load(survey.path) for survey in surveys])
        origins = np.repeat([survey.origin for survey in surveys], [survey.rows for survey in surveys])
        order = np.lexsort((np.arange(len(hashes)), -origins, hashes))
        new = np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]])
        kept = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
        instead = np.full(len(hashes), -1)
        instead[order[~new]] = kept[~new]
        with path.open("wb") as file:
            np.save(file, instead)
        return {"groups": len(np.unique(kept[~new]))}

    def judge(self, examples: Iterable[Example], path: Path, first: int) -> Iterator[Outcome]:
        """Take out what repeats another example."""
        instead = np.load(path, mmap_mode="r")
        for number, example in enumerate(examples, first):
            if instead[number] < 0:
                yield example
            else:
                yield Removed(example, "the same as another example", f"example {instead[number] + 1}")
