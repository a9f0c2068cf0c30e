"""From documents to steps to passes: a seeded order, and packing that loses no document.

A *step* is the set of documents behind one optimiser step (at most ``tokens_per_step`` tokens); a
*pass* is the part of a step that goes through the model at once (at most ``tokens_per_pass``).
Steps are formed first and without regard to passes, so smaller passes (after running out of
memory, or on another machine) leave the data order and the sum behind every step as they were.
Passes hold no padding: a pass that is not full costs only what it holds.

Shapes: T tokens of a pass, D documents of a pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tanzim.core.records import Json
from tanzim.core.seeds import derive
from tanzim.train.tokens import Document

# The documents of a pass: in one row kept apart, in rows filled up to the longest, or one at a time.
Layout = Literal["packed", "padded", "single"]
WINDOW = 4096  # documents packed together: enough for a good fill, few enough to keep the order random


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole documents in one row, isolated by ``cu_seq_lens``.

    Args:
        input_ids_1T: token ids, int64.
        position_ids_1T: positions, from 0 in each document.
        cu_seq_lens: borders of the documents, int32 [D + 1].
        max_length: tokens of the longest document.
        targets_T: the next token of each token; 0 where there is none.
        weights_T: loss weight of each target, float32; 0 for the last token of a document.
        documents: the documents themselves.

    """

    input_ids_1T: Tensor
    position_ids_1T: Tensor
    cu_seq_lens: Tensor
    max_length: int
    targets_T: Tensor
    weights_T: Tensor
    documents: tuple[Document, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the batch holds."""
        return self.input_ids_1T.shape[1]

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on ``device``."""
        return Batch(
            self.input_ids_1T.to(device),
            self.position_ids_1T.to(device),
            self.cu_seq_lens.to(device),
            self.max_length,
            self.targets_T.to(device),
            self.weights_T.to(device),
            self.documents,
        )


def collate(documents: Sequence[Document]) -> Batch:
    """Put whole documents into one row, each token's target and weight beside it."""
    lengths = [len(document.ids) for document in documents]
    targets, weights = [], []
    for document in documents:
        targets += [document.ids[1:], np.zeros(1, np.int32)]
        weights += [document.weights[1:], np.zeros(1, np.float32)]
    return Batch(
        torch.from_numpy(np.concatenate([d.ids for d in documents]).astype(np.int64))[None],
        torch.from_numpy(np.concatenate([np.arange(n) for n in lengths]))[None],
        torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32),
        max(lengths),
        torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        torch.from_numpy(np.concatenate(weights)),
        tuple(documents),
    )


def filled(batch: Batch, multiple: int) -> Batch:
    """Lengthen the row to a multiple of ``multiple`` tokens by a document that nobody sees or learns.

    oneDNN compiles a kernel for every shape it meets and keeps up to 1,024 of them, of up to a megabyte
    each: passes of every length would take half a gigabyte.
    """
    extra = -batch.tokens % multiple
    if not extra:
        return batch
    return replace(
        batch,
        input_ids_1T=functional.pad(batch.input_ids_1T, (0, extra)),
        position_ids_1T=torch.cat(
            [batch.position_ids_1T, torch.arange(extra, device=batch.position_ids_1T.device)[None]], dim=1
        ),
        cu_seq_lens=torch.cat([batch.cu_seq_lens, batch.cu_seq_lens[-1:] + extra]),
        max_length=max(batch.max_length, extra),
        targets_T=functional.pad(batch.targets_T, (0, extra)),
        weights_T=functional.pad(batch.weights_T, (0, extra)),
    )


def pack(lengths: npt.NDArray[np.int64], order: Sequence[int], capacity: int) -> list[list[int]]:
    """Put documents into the fewest bins by best-fit decreasing; a longer one gets a bin of its own.

    Args:
        lengths: tokens of each document.
        order: the documents to pack; ties keep this order.
        capacity: most tokens of a bin.

    Returns:
        Bins of document numbers.

    """
    bins: list[list[int]] = []
    open_bins: list[tuple[int, int]] = []  # (room left, bin), sorted
    for document in sorted(order, key=lambda index: -lengths[index]):
        length = int(lengths[document])
        at = bisect_left(open_bins, (length, -1))
        if at < len(open_bins):
            room, number = open_bins.pop(at)
            bins[number].append(document)
        else:
            room, number = capacity, len(bins)
            bins.append([document])
        if room - length > 0:
            insort(open_bins, (room - length, number))
    return bins


def alike(lengths: npt.NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Put documents of like length together, so that count × longest is at most ``capacity``.

    Args:
        lengths: tokens of each document.
        capacity: most tokens of a group, padding included; a longer document gets a group of its own.

    Returns:
        Groups of document numbers, the longest first; documents of one length keep their order.

    """
    groups: list[list[int]] = []
    for document in np.argsort(-lengths, kind="stable").tolist():
        longest = int(lengths[groups[-1][0]]) if groups else 0
        if groups and (len(groups[-1]) + 1) * longest <= capacity:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups


class Sampler:
    """The steps of every epoch, fixed by the seed alone.

    Args:
        lengths: tokens of each document, int64 [N].
        seed: the run's seed.
        tokens_per_step: most tokens of a step; a longer document makes a step of its own.
        packing: fill passes with several documents, or take one document a pass.
        padded: documents of a pass are filled up to the longest, so that each costs as much as it.

    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        *,
        seed: int,
        tokens_per_step: int,
        packing: bool,
        padded: bool = False,
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.tokens_per_step = tokens_per_step
        self.packing = packing
        self.padded = padded
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def steps(self, epoch: int) -> list[list[int]]:
        """Return the steps of ``epoch`` (from 0): every document stands in exactly one of them."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._make(epoch))
        return self._epoch[1]

    def _make(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng(derive(self.seed, "order", epoch))
        order = random.permutation(len(self.lengths)).tolist()
        steps: list[list[int]] = []
        left: list[int] = []
        for start in range(0, len(order), WINDOW):
            bins = pack(self.lengths, left + order[start : start + WINDOW], self.tokens_per_step)
            bins = [bins[index] for index in random.permutation(len(bins))]
            # The emptiest bin waits for the next window, which may fill it.
            left = bins.pop(int(np.argmin([self.lengths[b].sum() for b in bins])))
            steps += bins
        return [*steps, left] if left else steps

    def passes(self, lengths: npt.NDArray[np.int64], tokens_per_pass: int) -> list[list[int]]:
        """Divide documents of these lengths into passes of at most ``tokens_per_pass`` tokens."""
        if not self.packing:
            return [[document] for document in range(len(lengths))]
        if self.padded:
            return alike(lengths, tokens_per_pass)
        return pack(lengths, range(len(lengths)), tokens_per_pass)

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Count the optimiser steps of a run; a last fraction of an epoch is rounded up to a step."""
        count, epoch = 0, 0
        while epoch < epochs and (max_steps is None or count < max_steps):
            share = min(1.0, epochs - epoch)
            count += int(np.ceil(share * len(self.steps(epoch))))
            epoch += 1
        return count if max_steps is None else min(count, max_steps)

    def fill(self, tokens_per_pass: int) -> Json:
        """Report how well the first epoch packs: steps, passes, and the share of each that is used."""
        steps = self.steps(0)
        passes = sum(len(self.passes(self.lengths[step], tokens_per_pass)) for step in steps)
        tokens = sum(int(self.lengths[step].sum()) for step in steps)
        return {
            "documents": len(self.lengths),
            "tokens": tokens,
            "steps": len(steps),
            "passes": passes,
            # A step of the whole data set is full, and so is one of a longer document.
            "step_fill": min(1.0, tokens / (len(steps) * min(self.tokens_per_step, tokens))),
            "pass_fill": tokens / (passes * tokens_per_pass),
        }
