"""The generation thread: shares batches, survives failures, forgets clients that leave."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tanzim.core.errors import ConfigError, TanzimError
from tanzim.infer.engine import Engine, Grammar, Request
from tanzim.infer.paged_scheduler import PagedScheduler
from tanzim.infer.request import Delta
from tanzim.serve.catalogue import refusal_of
from tanzim.serve.errors import ApiError
from tanzim.serve.worker import Worker, WorkerError


@pytest.fixture
def engine(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="")


def ask(length: int, new_tokens: int = 30) -> Request:
    return Request(list(range(3, 3 + length)), max_new_tokens=new_tokens)


async def collect(worker: Worker, request: Request) -> str:
    return "".join([delta.text async for delta in worker.stream(request)])


@pytest.mark.parametrize("speculate", [False, True])
def test_concurrent_answers_equal_single_ones(engine: Engine, speculate: bool) -> None:
    requests = [ask(3 + 5 * i, 10 + i) for i in range(7)]
    expected = [completion.text for completion in engine.generate(requests)]

    async def together() -> list[str]:
        return await asyncio.gather(*(collect(worker, request) for request in requests))

    worker = Worker(engine, max_batch=3, speculate=speculate)
    assert isinstance(worker._scheduler, PagedScheduler)
    assert (worker._scheduler._cost is not None) == speculate
    worker.start()
    assert asyncio.run(together()) == expected
    worker.stop()
    assert not worker.alive


def test_leaving_cancels_the_computation(engine: Engine) -> None:
    async def leave() -> Delta:
        stream = worker.stream(dataclasses.replace(ask(4, 200), stop=("never there",)))
        first = await anext(stream)
        await stream.aclose()
        return first

    worker = Worker(engine, max_batch=2)
    worker.start()
    assert asyncio.run(leave()).finish_reason is None
    worker.stop()
    assert not worker._scheduler.busy


@pytest.mark.parametrize("kind", [RuntimeError, IndexError])
def test_a_failed_step_is_told_and_survived(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    whole = engine.generate([ask(4)])[0].text

    def fail(*_: object, **__: object) -> None:
        raise kind("out of memory")

    worker = Worker(engine, max_batch=2)
    worker.start()
    with monkeypatch.context() as patched:
        patched.setattr(type(worker._scheduler), "step", fail)
        with pytest.raises(WorkerError, match="out of memory"):
            asyncio.run(collect(worker, ask(4)))
    assert asyncio.run(collect(worker, ask(4))) == whole
    worker.stop()


def test_stopping_ends_what_is_under_way(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted() -> None:
        stream = worker.stream(ask(4, 240))
        await anext(stream)
        await asyncio.to_thread(worker.stop)
        with pytest.raises(WorkerError, match="shutting down"):
            async for _ in stream:
                pass
        with pytest.raises(WorkerError, match="stopped"):
            await anext(worker.stream(ask(4)))

    worker = Worker(engine, max_batch=2)
    scheduler = worker._scheduler
    step = scheduler.step
    monkeypatch.setattr(scheduler, "step", lambda: time.sleep(0.02) or step())  # else it might be done before
    worker.start()
    asyncio.run(interrupted())


def test_a_grammar_that_grows_too_large_is_the_request_s_fault(engine: Engine) -> None:
    many = {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(1500)}}
    asked = dataclasses.replace(ask(4, 40), grammar=Grammar("json_schema", json.dumps(many)))
    worker = Worker(engine, max_batch=2)
    worker.start()

    async def refused() -> ApiError:
        try:
            await worker.check(asked)
            async for _ in worker.stream(asked):
                pass
        except ConfigError as error:
            return ApiError(400, error.what)
        except TanzimError as error:
            return refusal_of(error)
        raise AssertionError

    error = asyncio.run(refused())
    assert error.status == 400
    assert "grammar" in error.message or "schema" in error.message
    assert len(error.message) < 300
    assert worker.alive
    worker.stop()
