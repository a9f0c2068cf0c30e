"""Continuous batching: requests join the running batch as rows of it become free.

Legend: B rows, T new tokens, L columns (cached tokens and padding), V vocabulary.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from tanzim.infer.cache import KVCache, stack_masks
from tanzim.infer.forward import Forward, common_prefix, left_padded
from tanzim.infer.residents import Residents
from tanzim.infer.sampling import choose, logprobs
from tanzim.infer.sequence import Sequence
from tanzim.infer.weights import Weights

SHORTEST_PREFIX = 16  # tokens from which computing a shared prefix apart pays for the extra pass
PREFILL_TOKENS = 8192  # most prompt tokens in one forward pass, so that activations stay small


@dataclass
class _Batch:
    """The running rows: their sequences, cache, which columns are real, and each row's next place."""

    sequences: list[Sequence]
    cache: Cache
    mask_BL: Tensor
    positions_B: Tensor


MIXED = ""  # stands for all adapters that one batch may hold beside the base; no adapter's name is empty


@dataclass
class _Prefix:
    """A computed beginning that prompts share."""

    adapter: str | None
    ids: list[int]
    cache: KVCache


class Scheduler:
    """Runs sequences to their end, up to ``max_batch`` together.

    One batch holds rows of the base and of any adapters of low rank; or, of each other kind, of one
    adapter. The queue is served strictly in order, so that a request that does not go with the running
    ones waits for them, and never for later ones.

    Args:
        forward: the model's forward pass.
        weights: switches between base and adapters.
        residents: loads adapters that wait for their turn.
        max_batch: most rows computed together.
        join_at: let new rows in when this many are free (more than one: fewer, larger prefills).
        mix: let adapters of low rank share a batch; else they are merged into the weights, one at a time,
            which is faster where there is only one.

    """

    def __init__(
        self,
        forward: Forward,
        weights: Weights,
        residents: Residents,
        *,
        max_batch: int,
        join_at: int = 1,
        mix: bool = True,
    ) -> None:
        self._forward = forward
        self._weights = weights
        self._residents = residents
        self._max_batch = 1 if forward.single_row else max_batch
        self._join_at = min(join_at, self._max_batch)
        self._mix = mix
        self._waiting: deque[Sequence] = deque()
        self._batch: _Batch | None = None
        self._prefix: _Prefix | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._waiting) or self._batch is not None

    @property
    def waiting(self) -> int:
        """How many sequences wait for their turn."""
        return len(self._waiting)

    @property
    def cache_use(self) -> None:
        """Nothing: the cache grows with the batch, and has no bound of its own."""

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        elif self._batch is not None and sequence in self._batch.sequences:
            self._keep([other is not sequence for other in self._batch.sequences])

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Give every running sequence one more token; return those that got one, or failed to begin."""
        group, failed = self._admit()
        if not group and self._batch is None:
            return failed
        logits_BV, sequences = self._prefill(group) if group else self._decode()
        self._sample(logits_BV, sequences)
        if self._batch is not None and any(s.finish_reason for s in self._batch.sequences):
            self._keep([s.finish_reason is None for s in self._batch.sequences])
        return failed + sequences

    def _lane(self, sequence: Sequence) -> str | None:
        """Return what the sequences of one batch have in common: their adapter, or that they mix."""
        adapter = sequence.request.adapter
        return MIXED if self._mix and self._weights.mixes(adapter) else adapter

    def _admit(self) -> tuple[list[Sequence], list[Sequence]]:
        """Take the next sequences off the queue that fit into the batch; and those that cannot begin."""
        running = len(self._batch.sequences) if self._batch is not None else 0
        free = self._max_batch - running
        group: list[Sequence] = []
        failed: list[Sequence] = []
        if not self._waiting or (running and free < self._join_at):
            return group, failed
        lane = self._lane(self._batch.sequences[0]) if self._batch is not None else None
        longest = 0
        while self._waiting and len(group) < free and self._residents.ready(self._waiting[0]):
            if self._waiting[0].error is not None:
                failed.append(self._waiting.popleft())
                continue
            if not running and not group:
                lane = self._lane(self._waiting[0])
            head = self._waiting[0].request
            longest = max(longest, len(head.prompt_ids))
            too_many = group and longest * (len(group) + 1) > PREFILL_TOKENS
            # Padding would stand between the learnt start of a row and its text.
            alone = group and self._forward.contiguous and self._weights.start(head.adapter) is not None
            if self._lane(self._waiting[0]) != lane or too_many or alone:
                break
            group.append(self._waiting.popleft())
            group[-1].begin()
            self._residents.hold(head.adapter)
        return group, failed

    def _prefill(self, group: list[Sequence]) -> tuple[Tensor, list[Sequence]]:
        """Compute the prompts of ``group`` and let it join the batch; returns logits [B, V]."""
        prompts = [sequence.request.prompt_ids for sequence in group]
        prefix = self._shared_prefix(group)
        known = len(prefix.ids) if prefix else 0
        held = prefix.cache if prefix else self._weights.start(group[0].request.adapter)
        start = (
            held.get_seq_length() if held is not None else 0
        )  # columns: what was learnt, and the shared prefix
        cache = held.repeat(len(group)) if held is not None else self._forward.new_cache()
        ids_BT, new_BT = left_padded([prompt[known:] for prompt in prompts], self._forward.device)
        positions_BT = (new_BT.cumsum(1) - 1).clamp_min(0) + start
        mask_BL = torch.cat([new_BT.new_ones(len(group), start), new_BT], dim=1)
        logits_BV = self._compute(group, ids_BT, positions_BT, _or_none(mask_BL), cache)
        self._join(_Batch(group, cache, mask_BL, positions_BT[:, -1] + 1))
        return logits_BV, group

    def _shared_prefix(self, group: list[Sequence]) -> _Prefix | None:
        """Return the computed prefix that the group's prompts share, computing it if it is worth it."""
        if self._forward.contiguous:
            return None
        adapter = group[0].request.adapter
        if any(sequence.request.adapter != adapter for sequence in group):
            return None
        prompts = [s.request.prompt_ids for s in group]
        held = self._prefix
        if (
            held is not None
            and held.adapter == adapter
            and all(len(p) > len(held.ids) and p[: len(held.ids)] == held.ids for p in prompts)
        ):
            return held
        others = [s.request.prompt_ids for s in self._waiting if s.request.adapter == adapter]
        for rows in (prompts + others, prompts):
            length = common_prefix(rows)
            if len(rows) > 1 and length >= SHORTEST_PREFIX:
                ids = prompts[0][:length]
                ids_1T = torch.tensor([ids], device=self._forward.device)
                learnt = self._weights.start(adapter)
                cache = learnt.repeat(1) if learnt is not None else KVCache()
                positions_1T = (
                    torch.arange(length, device=self._forward.device)[None] + cache.get_seq_length()
                )
                self._compute(group[:1], ids_1T, positions_1T, None, cache)
                self._prefix = _Prefix(adapter, ids, cache)
                return self._prefix
        return None

    def _join(self, new: _Batch) -> None:
        old = self._batch
        if old is None:
            self._batch = new
            return
        # A model whose cache cannot be joined runs one row at a time.
        assert isinstance(old.cache, KVCache)
        assert isinstance(new.cache, KVCache)
        self._batch = _Batch(
            old.sequences + new.sequences,
            old.cache.join(new.cache),
            stack_masks(old.mask_BL, new.mask_BL),
            torch.cat([old.positions_B, new.positions_B]),
        )

    def _decode(self) -> tuple[Tensor, list[Sequence]]:
        """Compute the last token of every running row; returns logits [B, V]."""
        batch = self._batch
        assert batch is not None
        ids_B1 = torch.tensor([[s.ids[-1]] for s in batch.sequences], device=self._forward.device)
        batch.mask_BL = torch.nn.functional.pad(batch.mask_BL, (0, 1), value=True)
        mask_BL = _or_none(batch.mask_BL)
        positions_B1 = batch.positions_B[:, None]
        logits_BV = self._compute(batch.sequences, ids_B1, positions_B1, mask_BL, batch.cache)
        batch.positions_B = batch.positions_B + 1
        return logits_BV, batch.sequences

    def _compute(
        self,
        sequences: list[Sequence],
        ids_BT: Tensor,
        positions_BT: Tensor,
        mask_BL: Tensor | None,
        cache: Cache,
    ) -> Tensor:
        """Run the model over rows of ``sequences``; returns the logits of the last column, [B, V]."""
        adapters = [sequence.request.adapter for sequence in sequences]
        if self._lane(sequences[0]) == MIXED:
            lent = self._weights.mixing((adapter, ids_BT.shape[1]) for adapter in adapters)
        else:
            lent = self._weights.using(adapters[0])
        with lent:
            return self._forward(ids_BT, positions_BT, mask_BL, cache)[:, -1]

    def _sample(self, logits_BV: Tensor, sequences: list[Sequence]) -> None:
        samplers = [sequence.sampler for sequence in sequences]
        chosen = choose(logits_BV, samplers)
        details = logprobs(logits_BV, chosen, samplers)
        for sequence, token, detail in zip(sequences, chosen, details, strict=True):
            sequence.append(token, detail)

    @torch.inference_mode()
    def _keep(self, keep: list[bool]) -> None:
        """Let rows leave the batch, and with them the columns that only they needed."""
        batch = self._batch
        assert batch is not None
        for sequence, stays in zip(batch.sequences, keep, strict=True):
            if not stays:
                self._residents.let_go(sequence.request.adapter)
        if not any(keep):
            self._batch = None
            return
        assert isinstance(batch.cache, KVCache)
        rows = torch.tensor([row for row, stays in enumerate(keep) if stays], device=self._forward.device)
        mask_BL = batch.mask_BL[rows]
        first = int(mask_BL.any(dim=0).int().argmax())
        self._batch = _Batch(
            [s for s, stays in zip(batch.sequences, keep, strict=True) if stays],
            batch.cache.select(rows, first),
            mask_BL[:, first:],
            batch.positions_B[rows],
        )


def _or_none(mask_BL: Tensor) -> Tensor | None:
    """Return the mask, or None where there is no padding: attention without a mask is faster."""
    return None if bool(mask_BL.all()) else mask_BL
