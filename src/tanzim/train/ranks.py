"""How a step is shared by several processes; here is the plain case of one, which shares with nobody.

Every rank makes the same steps of the same documents. Of each step it takes its part of the documents
through the model; the gradients are summed over the ranks. Since every pass is scaled by the weight of
the whole step, the sum needs no further factor, and a step is the same on any number of ranks. What is
random in a pass (dropout) is drawn for each rank and step anew; everything else is drawn alike by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tanzim.adapters.method import Method
from tanzim.core.records import Json
from tanzim.launch.heartbeat import Phase
from tanzim.train.tokens import Document

Parameters = Mapping[str, nn.Parameter]


class Ranks:
    """The only process of a run: everything is its own.

    Attributes:
        rank: this process's number, from 0; the first one writes metrics, checkpoints and the result.
        world: how many there are.
        together: whether all must make the same number of passes, since passes wait for one another.

    """

    rank = 0
    world = 1
    together = False

    @property
    def first(self) -> bool:
        """Whether this rank writes what is written."""
        return self.rank == 0

    def shares(self, lengths: npt.NDArray[np.int64]) -> list[list[int]]:
        """Divide documents of these lengths among the ranks: the numbers of each rank's documents."""
        return [list(range(len(lengths)))]

    def beat(
        self, phase: Phase, step: int | None = None, documents: Sequence[Document] | None = None
    ) -> None:
        """Say what this rank is about to do."""

    @contextmanager
    def drawing(self, seed: int, step: int) -> Iterator[None]:
        """Draw random numbers of this rank's own inside the block."""
        yield

    def sum(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over the ranks."""
        return values

    def any(self, flag: bool) -> bool:
        """Tell whether ``flag`` stands on any rank."""
        return self.sum(flag)[0] > 0

    def check(self, optimizer: str, *, averaged: bool) -> None:
        """Refuse an optimiser that this way of sharing would make another one of.

        Args:
            optimizer: its type.
            averaged: whether an average of the weights is kept.

        Raises:
            TrainError: it is one of those.

        """

    def least(self, value: int) -> int:
        """Return the least value of any rank."""
        return value

    def same(self, value: Json) -> Json:
        """Return the first rank's value."""
        return value

    def tensors(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the first rank's tensors, on the CPU; what other ranks give is not looked at."""
        return dict(named)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first rank do the block, then one of each other machine, then all others.

        So that what is made once, and found again, is made by one: also where machines share no disk.
        """
        yield

    def wait(self) -> None:
        """Wait until all ranks are here, however long that takes."""

    def check_alike(self, identity: Json, parameters: Parameters) -> None:
        """Refuse ranks with other data or other weights.

        Raises:
            TrainError: they differ.

        """

    def sum_gradients(self, parameters: Parameters) -> None:
        """Replace every gradient by its sum over the ranks."""

    def clip(self, parameters: Parameters, max_norm: float) -> float:
        """Scale the gradients down to the L2 norm ``max_norm`` of all together; return what it was."""
        return float(nn.utils.clip_grad_norm_(parameters.values(), max_norm))

    def whole(self, tensor: Tensor) -> Tensor:
        """Return a parameter, gradient or moment as a whole; all ranks ask for it together."""
        return tensor.detach()

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """Return of ``whole`` what this rank keeps of ``like``."""
        return whole

    def shard(self, method: Method, *, half: bool = False) -> None:
        """Divide the layers of a prepared model among the ranks, if they do not each hold the whole.

        Args:
            method: it trains the parts afterwards.
            half: whether the products are in float16, with a loss scale.

        Raises:
            TrainError: the method works on whole matrices, or the precision on whole gradients.

        """

    def separate(self, optimizer: torch.optim.Optimizer) -> None:
        """Put divided and whole parameters into groups of their own."""

    @contextmanager
    def assembled(self, model: nn.Module) -> Iterator[None]:
        """Let the first rank's model be whole inside the block, to be written."""
        yield

    def leave(self) -> None:
        """Part from the other ranks."""


def divide(lengths: npt.NDArray[np.int64], world: int) -> list[list[int]]:
    """Divide documents evenly: each, longest first, goes to the rank with the fewest tokens so far.

    Args:
        lengths: tokens of each document.
        world: how many ranks.

    Returns:
        The numbers of each rank's documents, ascending.

    """
    shares: list[list[int]] = [[] for _ in range(world)]
    tokens = [0] * world
    for document in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        least = min(range(world), key=tokens.__getitem__)
        shares[least].append(document)
        tokens[least] += int(lengths[document])
    return [sorted(share) for share in shares]


def idle(document: Document) -> Document:
    """Return ``document`` with no token that counts, for a pass that only keeps the others company."""
    return document._replace(weights=np.zeros_like(document.weights))
