"""Continuous batching over pages: every pass takes what is there, decoding rows and pieces of prompts.

Legend: W tokens whose successors are wanted, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tanzim.infer.drafts import NOTHING, Draft, Drafter
from tanzim.infer.kernels import PAGE
from tanzim.infer.lean import LeanModel, moved
from tanzim.infer.memory import free_memory
from tanzim.infer.paged_cache import Chunk, Pass, pages_of
from tanzim.infer.pages import Pages, Table
from tanzim.infer.refusals import TooLongError
from tanzim.infer.residents import Residents
from tanzim.infer.sampling import draw, logprob
from tanzim.infer.scheduler import Scheduler
from tanzim.infer.sequence import Sequence
from tanzim.infer.speculation import Budget, Cost
from tanzim.infer.weights import Weights

CHUNK = 256  # prompt tokens in a pass that others decode in: how long they wait for it
ALONE = 1024  # prompt tokens in a pass where nobody waits
SHARE_OF_MEMORY = 0.25  # of what is free, for the cache


@dataclass(eq=False, slots=True)
class _Row:
    """A running sequence, its pages, all its tokens, and those guessed beyond them for the next pass."""

    sequence: Sequence
    table: Table
    ids: list[int]
    drafter: Drafter = field(init=False)
    draft: Draft = NOTHING

    def __post_init__(self) -> None:
        self.drafter = Drafter(self.ids, self.sequence.sampler.matcher)

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
        cost: what passes take, so that tokens are drafted where it pays; None drafts none.

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
        cost: Cost | None = None,
    ) -> None:
        self._lean, self._weights, self._other = lean, weights, other
        self._cost = cost
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
            TooLongError: it may grow longer than the whole cache.

        """
        most = self._most(sequence)
        if most > self._cache.pages * PAGE:
            raise TooLongError(
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
        return failed + self._take(logits_WV, parts)

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
        return self._weights.version(sequence.request.adapter), sequence.request.realm

    def _divide(self) -> list[tuple[_Row, int]]:
        """Return the rows of the next pass and how many tokens of each: first those that decode."""
        decoding = [row for row in self._rows if row.left == 1]
        room = CHUNK if decoding else ALONE
        reading = []
        for row in self._rows:
            if row.left > 1 and room > 0:
                count = min(row.left, room)
                reading.append((row, count))
                room -= count
        if self._cost is not None:
            self._draft(self._cost, decoding, sum(count for _, count in reading))
        return [(row, 1 + len(row.draft.tokens)) for row in decoding] + reading

    def _draft(self, cost: Cost, decoding: list[_Row], other_tokens: int) -> None:
        """Choose what the rows that decode compute beyond their last token."""
        prices = [cost.of(row.table.tokens, row.sequence.request.adapter is not None) for row in decoding]
        budget = Budget(cost, prices, other_tokens)
        for place, row in enumerate(decoding):
            left = row.sequence.limit - len(row.sequence.ids)
            row.draft = row.drafter.draft(left - 1, budget.least(place))  # the model adds one of its own
        counts = budget.share_out([row.draft.chances for row in decoding])
        for row, count in zip(decoding, counts, strict=True):
            row.draft = row.draft.first(count)

    def _compute(self, parts: list[tuple[_Row, int]]) -> Tensor:
        """Run the model over ``parts``; returns the logits after all known tokens and drafts, [W, V]."""
        ids: list[int] = []
        positions: list[int] = []
        pages: list[int] = []
        wanted: list[int] = []
        chunks: list[Chunk] = []
        decoding: list[tuple[list[int], int]] = []
        for row, count in parts:
            table, start = row.table, len(ids)
            self._pages.grow(table, count)
            done = table.tokens
            ids += row.ids[done : done + count]
            if row.left == 1:  # a draft's token sees those before it: keys are stored before any are read
                ids += row.draft.tokens
                decoding += ((table.pages, done + number + 1) for number in range(count))
                wanted += range(start, start + count)
            else:
                needed = -(-(done + count) // PAGE)
                chunks.append(Chunk(start, start + count, tuple(table.pages[:needed]), done + count))
                if row.left == count:
                    wanted.append(start + count - 1)
            positions += range(done, done + count)
            pages += (table.pages[place // PAGE] for place in range(done, done + count))
        self._weights.plan((row.sequence.request.adapter, count) for row, count in parts)
        step = Pass(
            torch.tensor(ids), torch.tensor(positions), torch.tensor(pages),
            pages_of([table for table, _ in decoding]),
            torch.tensor([length for _, length in decoding], dtype=torch.int64),
            tuple(chunks), torch.tensor(wanted, dtype=torch.int64),
        )  # fmt: skip
        return self._lean(moved(step, self._lean.device), self._cache)

    def _take(self, logits_WV: Tensor, parts: list[tuple[_Row, int]]) -> list[Sequence]:
        """Give tokens to all rows that are computed to their end; note what has been computed."""
        likeliest: list[int] = logits_WV.argmax(dim=-1).tolist()
        advanced, start = [], 0
        for row, count in parts:
            if row.left > count:
                self._pages.advance(row.table, row.ids, count)
                continue
            drafted = len(row.draft.tokens)
            end = start + drafted + 1
            right = self._choose(row, logits_WV[start:end], likeliest[start:end])
            start = end
            # What is known of the cache are tokens that came: never a wrong guess.
            self._pages.advance(row.table, row.ids, count - drafted + right)
            row.drafter.learn(row.draft, right)
            if row.sequence.finish_reason is not None:
                self._leave(row)
            advanced.append(row.sequence)
        return advanced

    def _choose(self, row: _Row, logits_TV: Tensor, likeliest: list[int]) -> int:
        """Choose a row's next tokens one by one as long as its draft goes on alike; return how far it did.

        Each is drawn as if there were no draft, so that the answer is the same with and without.
        """
        sequence, sampler, draft = row.sequence, row.sequence.sampler, row.draft.tokens
        for place, likely in enumerate(likeliest):
            token = draw(logits_TV[place], likely, sampler)
            sequence.append(token, logprob(logits_TV[place], token, sampler))
            row.ids.append(token)
            goes_on = place < len(draft) and token == draft[place]
            if sequence.finish_reason is not None or not goes_on:
                break
        return place

    def _leave(self, row: _Row) -> None:
        self._rows.remove(row)
        self._residents.let_go(row.sequence.request.adapter)
        self._pages.release(row.table)
