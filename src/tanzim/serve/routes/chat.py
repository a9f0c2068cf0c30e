"""``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.serve.access.gate import Asks, Gate
from tanzim.serve.access.roles import Caller
from tanzim.serve.answer import Answer
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import Context
from tanzim.serve.schema import ChatRequest


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request, caller: Asks) -> JSONResponse | StreamingResponse:
        prepared = await service.prepare(caller, asked)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = _charged(service.events(prepared, usage=usage), caller, prepared.answer, request)
            return StreamingResponse(events, media_type="text/event-stream")
        try:
            return JSONResponse(await _unless_gone(request, service.whole(prepared)))
        finally:
            _gate(request).limits.charge(caller, prepared.answer.tokens)


def _gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


async def _charged(
    events: AsyncIterator[str], caller: Caller, answer: Answer, request: Request
) -> AsyncIterator[str]:
    """Pass events on; charge their tokens in the end, also when the client has left."""
    try:
        async for event in events:
            yield event
    finally:
        _gate(request).limits.charge(caller, answer.tokens)


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
