"""An answer to its client, whole or as a stream: charged, counted and logged however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.serve.access.gate import Gate
from tanzim.serve.access.roles import Caller
from tanzim.serve.catalogue import refusal_of
from tanzim.serve.errors import ApiError
from tanzim.serve.flow import Prepared, events, whole
from tanzim.serve.reply import Tally
from tanzim.serve.routes.context import Context


async def respond(
    context: Context, request: Request, caller: Caller, prepared: Prepared, *, stream: bool
) -> JSONResponse | StreamingResponse:
    """Answer a prepared request."""
    backend = context.service.backend
    if stream:
        counted = _counted(events(backend, prepared), context, request, caller, prepared)
        return StreamingResponse(counted, media_type="text/event-stream")
    with accounted(context, request, caller, prepared.answer, prepared.said, streamed=False):
        return JSONResponse(await unless_gone(request, whole(backend, prepared)))


async def _counted(
    parts: AsyncIterator[str], context: Context, request: Request, caller: Caller, prepared: Prepared
) -> AsyncIterator[str]:
    """Pass events on, and account for them in the end, also when the client has left."""
    with accounted(context, request, caller, prepared.answer, prepared.said, streamed=True):
        async for part in parts:
            yield part


@contextmanager
def accounted(
    context: Context, request: Request, caller: Caller, answer: Tally, said: str, *, streamed: bool
) -> Iterator[None]:
    """Charge, count and log an answer when the block ends, however it ends."""
    start = time.perf_counter()
    try:
        yield
    finally:
        gate: Gate = request.app.state.gate
        gate.limits.charge(caller, answer.tokens)
        if answer.first_text is not None:
            context.metrics.first_token.labels(answer.model).observe(answer.first_text - start)
        context.metrics.tokens.labels(answer.model, "prompt").inc(answer.prompt_tokens)
        context.metrics.tokens.labels(answer.model, "answer").inc(answer.answer_tokens)
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
        context.log.add(line, said, answer.text)


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
