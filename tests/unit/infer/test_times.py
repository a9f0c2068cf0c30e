"""What a scheduler tells of a request: when it began, got its tokens, and what of it was known before."""

from __future__ import annotations

import time

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.infer.engine import Engine, Request
from tanzim.infer.kernels import PAGE
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.infer.sequence import Sequence

PROMPT = [3 + place % 250 for place in range(3 * PAGE + 5)]


@pytest.mark.parametrize("paged", [True, False])
def test_times_follow_the_request(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, paged: bool
) -> None:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[], base_hash="")
    scheduler = engine.server(1, cache_tokens=16 * PAGE) if paged else engine.scheduler(1)
    assert isinstance(scheduler, PagedScheduler) == paged
    start = time.perf_counter()
    first, second = (engine.sequence(Request(PROMPT, max_new_tokens=4)) for _ in range(2))
    for sequence in (first, second):
        scheduler.add(sequence)
    assert scheduler.waiting == 2
    seen: list[Sequence] = []
    while scheduler.busy:
        if not first.finish_reason:
            assert second.times.begun == 0  # one row: it waits
        seen += scheduler.step()
        if first in seen and first.finish_reason is None:
            assert scheduler.waiting == 1
            held = -(-(len(PROMPT) + first.times.tokens - 1) // PAGE) * PAGE
            assert scheduler.cache_use == ((held, 16 * PAGE) if paged else None)
    for sequence in (first, second):
        times = sequence.times
        assert start <= times.asked <= times.begun <= times.first < times.last <= time.perf_counter()
        assert times.tokens == len(sequence.ids) == 4
    assert second.times.begun >= first.times.last
    # Full pages that the first computed are known to the second; at least one token is left to compute.
    assert (first.times.known, second.times.known) == ((0, 3 * PAGE) if paged else (0, 0))
    assert scheduler.waiting == 0
    assert scheduler.cache_use == ((0, 16 * PAGE) if paged else None)
