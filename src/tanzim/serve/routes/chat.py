"""``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.core.errors import TanzimError
from tanzim.core.records import Json
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import Context, project_of
from tanzim.serve.schema import ChatRequest


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> JSONResponse | StreamingResponse:
        requests, answer = await service.prepare(project_of(request), asked)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = service.events(requests, answer, usage=usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(await _unless_gone(request, service.whole(requests, answer)))


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
