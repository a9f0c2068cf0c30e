"""Continuous batching over pages: every pass takes what is there, decoding rows and pieces of prompts.

Legend: W sequences that get a token, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from tanzim.core.errors import ModelError
from tanzim.infer.kernels import PAGE
from tanzim.infer.lean import LeanModel, moved
from tanzim.infer.memory import free_memory
from tanzim.infer.paged_cache import Chunk, Pass, pages_of
from tanzim.infer.pages import Pages, Table
from tanzim.infer.residents import Residents
from tanzim.infer.sampling import choose, logprobs
from tanzim.infer.scheduler import Scheduler
from tanzim.infer.sequence import Sequence
from tanzim.infer.weights import Weights

CHUNK = 256  # prompt tokens in a pass that others decode in: how long they wait for it
ALONE = 1024  # prompt tokens in a pass where nobody waits
SHARE_OF_MEMORY = 0.25  # of what is free, for the cache


@dataclass(eq=False, slots=True)
class _Row:
    """A running sequence, its pages, and all its tokens."""

    sequence: Sequence
    table: Table
    ids: list[int]

    @property
    def left(self) -> int:
        """Tokens that are not computed yet: 1 where it decodes."""
        return len(self.ids) - self.table.tokens


class PagedScheduler:
    """Runs sequences to their end with the lean forward pass, up to ``max_batch`` together.

    A sequence is let in when the pages it may come to need are there, so that none is ever thrown out.
    Adapters that do not mix are handed to a `Scheduler`, when the sequences before them have ended.

    Args:
        lean: the forward pass.
        weights: knows which adapters mix.
        residents: loads adapters that wait for their turn.
        other: runs the adapters that do not.
        max_batch: most sequences computed together.
        context: most tokens of a sequence.
        cache_tokens: tokens that the cache holds; None takes a share of the free memory, at most what
            ``max_batch`` sequences of full length need.

    """

    def __init__(
        self,
        lean: LeanModel,
        weights: Weights,
        residents: Residents,
        other: Scheduler,
        *,
        max_batch: int,
        context: int | None,
        cache_tokens: int | None = None,
    ) -> None:
        self._lean, self._weights, self._other = lean, weights, other
        self._residents = residents
        self._max_batch = max_batch
        if cache_tokens is None:
            room = free_memory(lean.device) * SHARE_OF_MEMORY / lean.bytes_per_token
            cache_tokens = int(min(room, max_batch * (context or 4096)))
        self._cache = lean.cache(max(cache_tokens, PAGE))
        self._pages = Pages(self._cache.pages, PAGE)
        self._waiting: deque[Sequence] = deque()
        self._rows: list[_Row] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._waiting or self._rows) or self._other.busy

    @property
    def waiting(self) -> int:
        """How many sequences wait for their turn."""
        return len(self._waiting) + self._other.waiting

    @property
    def cache_use(self) -> tuple[int, int]:
        """Tokens of the cache that sequences hold, and all that it has room for."""
        return self._pages.held * PAGE, self._pages.count * PAGE

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence.

        Raises:
            ModelError: it may grow longer than the whole cache.

        """
        most = self._most(sequence)
        if most > self._cache.pages * PAGE:
            raise ModelError(
                f"the request may come to {most} tokens; the cache holds {self._cache.pages * PAGE}",
                fix="ask for a shorter answer",
            )
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return
        for row in self._rows:
            if row.sequence is sequence:
                self._leave(row)
                return
        self._other.cancel(sequence)

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Compute one pass; return the sequences that got a token, or failed to begin.

        There may be none, while a long prompt is read.
        """
        failed = self._admit()
        if not self._rows:
            return failed + (self._other.step() if self._other.busy else [])
        parts = self._divide()
        logits_WV = self._compute(parts)
        advanced = []
        for row, count in parts:
            self._pages.advance(row.table, row.ids, count)
            if not row.left:
                advanced.append(row)
        return failed + self._sample(logits_WV, advanced)

    def _mixes(self, sequence: Sequence) -> bool:
        return self._weights.mixes(sequence.request.adapter)

    def _most(self, sequence: Sequence) -> int:
        return len(sequence.request.prompt_ids) + sequence.limit

    def _admit(self) -> list[Sequence]:
        """Let the next sequences in, strictly in order; return those that cannot begin."""
        failed: list[Sequence] = []
        while self._waiting and len(self._rows) < self._max_batch:
            head = self._waiting[0]
            if not self._residents.ready(head):
                break
            if head.error is not None:
                failed.append(self._waiting.popleft())
            elif self._mixes(head):
                prompt = head.request.prompt_ids
                table = None
                if not self._other.busy:
                    table = self._pages.begin(self._root(head), prompt, self._most(head))
                if table is None:
                    break
                head.begin(table.tokens)
                self._rows.append(_Row(self._waiting.popleft(), table, list(prompt)))
                self._residents.hold(head.request.adapter)
            elif self._rows:
                break
            else:
                self._other.add(self._waiting.popleft())
        return failed

    def _root(self, sequence: Sequence) -> Hashable:
        return self._weights.version(sequence.request.adapter)

    def _divide(self) -> list[tuple[_Row, int]]:
        """Return the rows of the next pass and how many tokens of each: first those that decode."""
        decoding = [(row, 1) for row in self._rows if row.left == 1]
        room = CHUNK if decoding else ALONE
        reading = []
        for row in self._rows:
            if row.left > 1 and room > 0:
                count = min(row.left, room)
                reading.append((row, count))
                room -= count
        return decoding + reading

    def _compute(self, parts: list[tuple[_Row, int]]) -> Tensor:
        """Run the model over ``parts``; returns the logits of those whose tokens end with them, [W, V]."""
        ids: list[int] = []
        positions: list[int] = []
        pages: list[int] = []
        wanted: list[int] = []
        chunks: list[Chunk] = []
        decoding: list[Table] = []
        for row, count in parts:
            table = row.table
            self._pages.grow(table, count)
            done = table.tokens
            if row.left == 1:
                decoding.append(table)
            else:
                needed = -(-(done + count) // PAGE)
                chunks.append(Chunk(len(ids), len(ids) + count, tuple(table.pages[:needed]), done + count))
            ids += row.ids[done : done + count]
            positions += range(done, done + count)
            pages += (table.pages[place // PAGE] for place in range(done, done + count))
            if row.left == count:
                wanted.append(len(ids) - 1)
        self._weights.plan((row.sequence.request.adapter, count) for row, count in parts)
        step = Pass(
            torch.tensor(ids), torch.tensor(positions), torch.tensor(pages),
            pages_of([table.pages for table in decoding]),
            torch.tensor([table.tokens + 1 for table in decoding], dtype=torch.int64),
            tuple(chunks), torch.tensor(wanted, dtype=torch.int64),
        )  # fmt: skip
        return self._lean(moved(step, self._lean.device), self._cache)

    def _sample(self, logits_WV: Tensor, rows: list[_Row]) -> list[Sequence]:
        if not rows:
            return []
        samplers = [row.sequence.sampler for row in rows]
        chosen = choose(logits_WV, samplers)
        details = logprobs(logits_WV, chosen, samplers)
        for row, token, detail in zip(rows, chosen, details, strict=True):
            row.sequence.append(token, detail)
            row.ids.append(token)
            if row.sequence.finish_reason is not None:
                self._leave(row)
        return [row.sequence for row in rows]

    def _leave(self, row: _Row) -> None:
        self._rows.remove(row)
        self._residents.let_go(row.sequence.request.adapter)
        self._pages.release(row.table)
