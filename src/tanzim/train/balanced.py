"""Class-balanced batches: every step draws the classes evenly, and rare documents come more than once.

An epoch is as long as it takes to see the largest class once; the documents of a smaller one are gone
through again, each time in a fresh order, until as many were drawn. So every document is seen at least once,
and `repeats` says how often. Prefer it to class weights where a class is so rare that most steps would hold
none of it; both together would count it twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tanzim.core.seeds import derive
from tanzim.train.batches import Layout, Sampler
from tanzim.train.config import TrainConfig


class BalancedSampler(Sampler):
    """Steps in which no class has more than two documents more than another.

    Args:
        lengths: tokens of each document, int64 [N].
        classes: class of each document, int64 [N].
        seed: the run's seed.
        tokens_per_step: most tokens of a step; a longer document makes a step of its own.
        packing: fill passes with several documents, or take one document a pass.
        padded: documents of a pass are filled up to the longest.

    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        classes: npt.NDArray[np.int64],
        *,
        seed: int,
        tokens_per_step: int,
        packing: bool,
        padded: bool = False,
    ) -> None:
        super().__init__(lengths, seed=seed, tokens_per_step=tokens_per_step, packing=packing, padded=padded)
        self.members = {int(name): np.flatnonzero(classes == name) for name in np.unique(classes)}
        self.largest = max(len(members) for members in self.members.values())

    def repeats(self, labels: Sequence[str]) -> str:
        """Say how often a document of each class stands in an epoch."""
        often = (f"{labels[c]} {self.largest / len(m):.3g} times" for c, m in self.members.items())
        return (
            f"balanced batches: an epoch draws {self.largest} documents of each label "
            f"({self.largest * len(self.members):,} for {len(self.lengths):,}), each of {', '.join(often)}"
        )

    def _make(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng(derive(self.seed, "order", epoch))
        drawn = [self._drawn(members, random) for members in self.members.values()]
        steps: list[list[int]] = []
        tokens = self.tokens_per_step
        for place in range(self.largest):
            for number in random.permutation(len(drawn)):
                document = int(drawn[number][place])
                tokens += int(self.lengths[document])
                if tokens > self.tokens_per_step:
                    steps.append([])
                    tokens = int(self.lengths[document])
                steps[-1].append(document)
        return steps

    def _drawn(self, members: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return as many documents of a class as the largest has, all of them before any again."""
        rounds = -(-self.largest // len(members))
        return np.concatenate([random.permutation(members) for _ in range(rounds)])[: self.largest]


def make_sampler(
    lengths: npt.NDArray[np.int64],
    config: TrainConfig,
    *,
    seed: int,
    layout: Layout = "packed",
    classes: npt.NDArray[np.int64] | None = None,
) -> Sampler:
    """Make the sampler that the config names.

    Args:
        lengths: tokens of each document, int64 [N].
        config: the ``train`` section.
        seed: the run's seed.
        layout: how the objective takes the documents of a pass.
        classes: class of each document, where steps are balanced.

    """
    packing = config.packing and layout != "single"
    padded, capacity = layout == "padded", config.step_tokens
    if classes is not None:
        return BalancedSampler(
            lengths, classes, seed=seed, tokens_per_step=capacity, packing=packing, padded=padded
        )
    return Sampler(lengths, seed=seed, tokens_per_step=capacity, packing=packing, padded=padded)
