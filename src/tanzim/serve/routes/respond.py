"""An answer to its client, whole or as a stream: charged, counted and logged however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.serve.access.gate import Gate
from tanzim.serve.access.roles import Caller
from tanzim.serve.catalogue import refusal_of
from tanzim.serve.errors import ApiError
from tanzim.serve.flow import Prepared, events, whole
from tanzim.serve.observe.seen import seen
from tanzim.serve.reply import Tally
from tanzim.serve.routes.context import Context


async def respond(
    context: Context, request: Request, caller: Caller, prepared: Prepared, *, stream: bool
) -> JSONResponse | StreamingResponse:
    """Answer a prepared request."""
    backend = context.service.backend
    seen(request).generation = prepared.requests[0]
    if stream:
        return _Events(_counted(events(backend, prepared), context, request, caller, prepared))
    with accounted(context, request, caller, prepared.answer, prepared.said, streamed=False):
        return JSONResponse(await unless_gone(request, whole(backend, prepared)))


class _Events(StreamingResponse):
    """A stream of events, closed with its response, wherever a client that leaves finds it."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


async def _counted(
    parts: AsyncGenerator[str, None], context: Context, request: Request, caller: Caller, prepared: Prepared
) -> AsyncGenerator[str, None]:
    """Pass events on, and account for them in the end, also when the client has left."""
    with accounted(context, request, caller, prepared.answer, prepared.said, streamed=True):
        async with aclosing(parts):
            async for part in parts:
                yield part


@contextmanager
def accounted(
    context: Context, request: Request, caller: Caller, answer: Tally, said: str, *, streamed: bool
) -> Iterator[None]:
    """Charge, count and log an answer when the block ends, however it ends."""
    start = time.perf_counter()
    known = seen(request)
    known.caller, known.answer, known.said, known.streamed = caller, answer, said, streamed
    try:
        yield
    finally:
        gate: Gate = request.app.state.gate
        gate.limits.charge(caller, answer.tokens)
        context.metrics.count(answer, start)
        line = {
            "id": answer.id,
            "project": caller.project,
            "key": caller.key,
            "model": answer.model,
            "prompt_tokens": answer.prompt_tokens,
            "answer_tokens": answer.answer_tokens,
            "seconds": round(time.perf_counter() - start, 3),
            "streamed": streamed,
        }
        context.log.add(line, said, "\n".join(answer.texts))


async def unless_gone(request: Request, work: Coroutine[Any, Any, Json]) -> Json:
    """Await ``work``, and cancel it if the client closes the connection before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client closed the connection.")
        return task.result()
    except TanzimError as error:
        raise refusal_of(error) from error
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
