"""``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.serve.access.gate import Asks, Gate
from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import ApiError
from tanzim.serve.observe.requests import said
from tanzim.serve.routes.context import Context
from tanzim.serve.schema import ChatRequest
from tanzim.serve.service import Prepared


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request, caller: Asks) -> JSONResponse | StreamingResponse:
        prepared = await service.prepare(caller, asked)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = service.events(prepared, usage=usage)
            counted = _counted(events, context, request, caller, asked, prepared)
            return StreamingResponse(counted, media_type="text/event-stream")
        with _accounted(context, request, caller, asked, prepared):
            return JSONResponse(await _unless_gone(request, service.whole(prepared)))


async def _counted(
    events: AsyncIterator[str],
    context: Context,
    request: Request,
    caller: Caller,
    asked: ChatRequest,
    prepared: Prepared,
) -> AsyncIterator[str]:
    """Pass events on, and account for them in the end, also when the client has left."""
    with _accounted(context, request, caller, asked, prepared):
        async for event in events:
            yield event


@contextmanager
def _accounted(
    context: Context, request: Request, caller: Caller, asked: ChatRequest, prepared: Prepared
) -> Iterator[None]:
    """Charge, count and log an answer when the block ends, however it ends."""
    start, answer = time.perf_counter(), prepared.answer
    try:
        yield
    finally:
        gate: Gate = request.app.state.gate
        gate.limits.charge(caller, answer.tokens)
        if answer.first_text is not None:
            context.metrics.first_token.labels(asked.model).observe(answer.first_text - start)
        context.metrics.tokens.labels(asked.model, "prompt").inc(answer.prompt_tokens)
        context.metrics.tokens.labels(asked.model, "answer").inc(answer.tokens - answer.prompt_tokens)
        line = {
            "id": answer.id,
            "project": caller.project,
            "key": caller.key,
            "model": asked.model,
            "prompt_tokens": answer.prompt_tokens,
            "answer_tokens": answer.tokens - answer.prompt_tokens,
            "seconds": round(time.perf_counter() - start, 3),
            "streamed": bool(asked.stream),
        }
        messages = [message.model_dump(exclude_none=True) for message in asked.messages]
        context.log.add(line, said(messages), answer.text)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Json]) -> Json:
    """Await ``work``, and cancel it if the client closes the connection before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client closed the connection.")
        return task.result()
    except TanzimError as error:
        raise ApiError(500, str(error)) from error
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
