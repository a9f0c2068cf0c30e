"""From prepared requests to answers: every choice through the backend and the middleware, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.infer import request as infer
from tanzim.serve.backend import Backend
from tanzim.serve.catalogue import Served, refusal_of
from tanzim.serve.middleware.seam import Passing, Refused
from tanzim.serve.reply import Reply


@dataclass(frozen=True, slots=True)
class Prepared:
    """A client's request, ready to be answered.

    Args:
        requests: one for each choice.
        answer: takes what they give.
        passings: what each choice passes on its way out; None for nothing.
        said: what the client said, as the log keeps it.
        served: which model answers.

    """

    requests: list[infer.Request]
    answer: Reply
    passings: list[Passing | None]
    said: str
    served: Served


async def whole(backend: Backend, prepared: Prepared) -> Json:
    """Return the finished answer."""
    choices: list[list[infer.Delta]] = [[] for _ in prepared.requests]
    async with aclosing(_interleaved(backend, prepared)) as deltas:
        async for index, delta in deltas:
            choices[index].append(delta)
    return prepared.answer.whole(choices)


async def events(backend: Backend, prepared: Prepared) -> AsyncGenerator[str, None]:
    """Yield the answer as server-sent events."""
    answer = prepared.answer
    try:
        for value in answer.opening():
            yield answer.event(value)
        async with aclosing(_interleaved(backend, prepared)) as deltas:
            async for index, delta in deltas:
                for value in answer.parts(index, delta):
                    yield answer.event(value)
        for value in answer.closing():
            yield answer.event(value)
    except TanzimError as error:
        yield answer.event(answer.fault(refusal_of(error)))
    if answer.END:
        yield answer.END


async def _interleaved(backend: Backend, prepared: Prepared) -> AsyncGenerator[tuple[int, infer.Delta], None]:
    """Yield the deltas of all choices as they come, with the number of the choice."""
    streams = [
        _guarded(backend, request, prepared.answer.awaited(), passing, prepared.served)
        for request, passing in zip(prepared.requests, prepared.passings, strict=True)
    ]
    waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                delta = task.result()
                prepared.answer.note(index, delta)
                yield index, delta
                if delta.finish_reason is None:
                    waiting[asyncio.ensure_future(anext(streams[index]))] = index
    except TanzimError as error:
        prepared.answer.fault_name = type(error).__name__
        raise
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def _guarded(
    backend: Backend, request: infer.Request, times: infer.Times, passing: Passing | None, served: Served
) -> AsyncGenerator[infer.Delta, None]:
    """Yield an answer as the middleware lets it out."""
    async with served.held(), aclosing(backend.stream(request, times)) as deltas:
        async for delta in deltas:
            if passing is None:
                yield delta
                continue
            try:
                text = await asyncio.to_thread(_passed, passing, delta)
            except Refused:
                yield replace(delta, text="", finish_reason="content_filter")
                return
            yield replace(delta, text=text)


def _passed(passing: Passing, delta: infer.Delta) -> str:
    text = passing.push(delta.text) if delta.text else ""
    return text if delta.finish_reason is None else text + passing.finish()
