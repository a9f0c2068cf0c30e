"""What the steps of one run work on, and going on with smaller passes when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tanzim.adapters.method import Method
from tanzim.core.errors import TrainError
from tanzim.core.records import Json
from tanzim.train.batches import Batch, Sampler, collate
from tanzim.train.checkpoint import State
from tanzim.train.config import TrainConfig
from tanzim.train.ema import Ema
from tanzim.train.log import MetricsLog
from tanzim.train.memory import is_out_of_memory, smaller_pass
from tanzim.train.objectives.base import Joint, Objective
from tanzim.train.ranks import Ranks, idle
from tanzim.train.tokens import Document
from tanzim.train.watch import Watch

NAMED_DOCUMENTS = 8  # documents that an error message names
T = TypeVar("T")


class StepFunction(Protocol):
    """How one step changes the weights: back-propagation, or another way."""

    def __call__(self, documents: Sequence[Document], rate: float) -> tuple[float, float | None]:
        """Make a step on ``documents`` at learning rate ``rate``; return its loss and gradient norm."""


@dataclass
class Training:
    """A run in progress.

    Args:
        config: the ``train`` section.
        objective: the loss.
        method: what is trained, and what its method does around a step.
        optimizer: over the same parameters.
        scaler: loss scaling, enabled for float16.
        sampler: how documents become passes; its seed is the run's.
        state: where the run stands.
        log: where lines go.
        ema: the average of the weights, if one is kept.
        ranks: the processes that share the run's steps; this one alone, unless it is given.

    """

    config: TrainConfig
    objective: Objective
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    sampler: Sampler
    state: State
    log: MetricsLog
    ema: Ema | None = None
    ranks: Ranks = field(default_factory=Ranks)
    total: int = field(init=False)
    watch: Watch = field(init=False)
    _current: Batch | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        refuse_joint(self.objective, self.ranks)
        self.total = self.sampler.total_steps(self.config.epochs, self.config.max_steps)
        self.watch = Watch(self.state.base_loss)
        for line in self.log.lines():
            self.watch.see(line)
        steps = len(self.sampler.steps(0))
        self.method.begin(optimizer=self.optimizer, steps_in_epoch=steps, say=self.log.event)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.sampler.seed

    def watches(self) -> bool:
        """Tell whether the step being made is one whose gradients are looked at, where they are whole."""
        return self.state.step % self.config.watch_steps == 0 and not self.ranks.together

    def record(self, line: Json) -> None:
        """Log ``line``, and whatever in it is to be warned of."""
        self.log.write(line)
        for found in self.watch.see(line):
            self.log.event(line["step"], found.message, warning=found.kind)

    def passes(self, documents: Sequence[Document]) -> list[list[Document]]:
        """Divide this rank's share of ``documents`` into passes of at most ``tokens_per_pass`` tokens."""
        lengths = np.array([len(document.ids) for document in documents])
        passes = self.shared_passes(lengths)
        return [[documents[index] for index in part] or [idle(documents[0])] for part in passes]

    def shared_passes(self, lengths: npt.NDArray[np.int64]) -> list[list[int]]:
        """Divide documents of these lengths among the ranks; return this rank's passes.

        Returns:
            Document numbers; none in a pass that only keeps other ranks company.

        """
        tokens, ranks = self.state.tokens_per_pass, self.ranks
        shares = ranks.shares(lengths)
        passes = [
            [[share[index] for index in part] for part in self.sampler.passes(lengths[share], tokens)]
            for share in (shares if ranks.together else shares[ranks.rank : ranks.rank + 1])
        ]
        mine = passes[ranks.rank if ranks.together else 0]
        return mine + [[]] * (max(map(len, passes)) - len(mine))

    def batch(self, documents: Sequence[Document]) -> Batch:
        """Collate ``documents``, and remember them should memory run out or this process be killed."""
        self._current = collate(documents)
        self.method.before_pass(documents)
        self.ranks.beat("working", self.state.step + 1, documents)
        return self._current

    def weight(self, documents: Sequence[Document]) -> float:
        """Return the loss weight of all ``documents`` together, which a step's loss is divided by."""
        return sum(document.weight for document in documents)

    def retrying(self, work: Callable[[], T]) -> T:
        """Do ``work``, again with smaller passes as often as memory runs out, on all ranks if on one.

        Raises:
            TrainError: memory ran out on one document.

        """
        while True:
            before = self.state.tokens_per_pass
            done: list[T] = []
            try:
                done.append(work())
            except RuntimeError as error:
                if isinstance(error, TrainError) or not is_out_of_memory(error):
                    raise
                if self.ranks.together:
                    raise TrainError(
                        f"memory ran out on one rank, in the middle of a pass of all: {error}",
                        fix="lower train.tokens_per_pass, or set train.gradient_checkpointing to true",
                    ) from error
            # Outside the handler, whose traceback would keep the failed pass's tensors alive.
            after = self.ranks.least(before if done else smaller_pass(self._current, before))
            if after == before:
                return done[0]
            self.optimizer.zero_grad(set_to_none=True)
            self.state.tokens_per_pass = after
            self.log.event(
                self.state.step + 1,
                f"out of memory: tokens_per_pass {before} → {self.state.tokens_per_pass}, "
                f"tokens_per_step stays {self.config.tokens_per_step}",
            )


def refuse_joint(objective: Objective, ranks: Ranks) -> None:
    """Refuse to divide among ranks what an objective looks at together.

    Raises:
        TrainError: there are several ranks, and the documents of a step are one another's negatives.

    """
    if ranks.world > 1 and isinstance(objective, Joint):
        raise TrainError(
            "the documents of a step are learnt from together, and several ranks would divide them",
            where="train.objective.type",
            fix="train on one process (launch.nproc=1)",
        )


def not_finite(what: str, value: float, step: int, documents: Sequence[Document]) -> TrainError:
    """Return the error that names the documents behind a loss or gradient that is not finite."""
    named = [str(document.provenance) for document in documents[:NAMED_DOCUMENTS]]
    more = len(documents) - len(named)
    where = "; ".join(named) + (f"; and {more} more" if more else "")
    return TrainError(
        f"the {what} became {value} in step {step}, before the optimiser changed anything",
        where=where,
        fix="look at these documents; lower train.learning_rate, or use model.dtype=float32",
    )
