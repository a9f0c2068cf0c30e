"""The OpenAI-compatible server: models and chat completions, for clients on this machine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from tanzim.core.errors import ModelError, RenderError, TanzimError
from tanzim.core.records import Json, Message
from tanzim.core.seeds import derive
from tanzim.infer import request as infer
from tanzim.infer.engine import Engine
from tanzim.infer.pieces import Pieces
from tanzim.serve.answer import Answer
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError, refusal
from tanzim.serve.schema import ChatRequest
from tanzim.serve.worker import Worker

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


class Prompts(Protocol):
    """What the server needs of the renderer."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the generation prompt of a conversation."""


class Service:
    """The models behind the routes.

    Args:
        engine: the generator.
        renderer: conversation → tokens.
        config: limits.
        models: name that clients ask for → the engine's adapter (None: the base).

    """

    def __init__(
        self, engine: Engine, renderer: Prompts, config: ServeConfig, models: Mapping[str, str | None]
    ) -> None:
        self.worker = Worker(engine, config.max_batch)
        self._engine = engine
        self._renderer = renderer
        self._config = config
        self._models = dict(models)
        self._pieces = Pieces(engine.tokenizer)
        self._created = int(time.time())
        self._rendering = asyncio.Lock()

    def model_list(self) -> Json:
        """Return every model, as OpenAI lists them."""
        return {"object": "list", "data": [self.model(name) for name in self._models]}

    def model(self, name: str) -> Json:
        """Return one model's entry.

        Raises:
            ApiError: there is none of this name (404).

        """
        self._check(name)
        return {"id": name, "object": "model", "created": self._created, "owned_by": "tanzim"}

    def _check(self, name: str) -> None:
        if name not in self._models:
            known = ", ".join(self._models)
            raise ApiError(
                404,
                f"The model '{name}' does not exist. Models here: {known}.",
                code="model_not_found",
                param="model",
            )

    async def prepare(self, asked: ChatRequest) -> tuple[list[infer.Request], Answer]:
        """Turn a client's request into one request per choice, and the answer they will fill.

        Raises:
            ApiError: the model is unknown (404); the prompt cannot be made or is too long (400).

        """
        self._check(asked.model)
        messages = [message.message() for message in asked.messages]
        try:
            async with self._rendering:
                ids = await asyncio.to_thread(self._renderer.prompt, messages, asked.prompt_tools)
        except (RenderError, ModelError) as error:
            raise ApiError(400, str(error), code="invalid_value", param="messages") from error
        context = self._engine.context_length
        if context is not None and len(ids) >= context:
            raise ApiError(
                400,
                f"This model's maximum context length is {context} tokens; your messages have {len(ids)}.",
                code="context_length_exceeded",
                param="messages",
            )
        first = infer.Request(
            prompt_ids=ids,
            adapter=self._models[asked.model],
            max_new_tokens=asked.limit or self._config.max_new_tokens,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            seed=asked.seed,
            stop=asked.stops,
            logprobs=asked.top_logprobs or 0 if asked.logprobs else None,
        )
        # Each further choice has a seed of its own, or all would say the same.
        seeds = [
            None if asked.seed is None else derive(asked.seed, "choice", index)
            for index in range(1, asked.n or 1)
        ]
        requests = [first, *(replace(first, seed=seed) for seed in seeds)]
        return requests, Answer(asked.model, self._pieces, len(ids), logprobs=bool(asked.logprobs))

    async def whole(self, requests: list[infer.Request], answer: Answer) -> Json:
        """Return the finished answer."""
        choices: list[list[infer.Delta]] = [[] for _ in requests]
        async with aclosing(self._interleaved(requests)) as deltas:
            async for index, delta in deltas:
                choices[index].append(delta)
        return answer.whole(choices)

    async def events(
        self, requests: list[infer.Request], answer: Answer, *, usage: bool
    ) -> AsyncIterator[str]:
        """Yield the answer as server-sent events."""
        try:
            for index in range(len(requests)):
                yield _event(answer.opening(index))
            async with aclosing(self._interleaved(requests)) as deltas:
                async for index, delta in deltas:
                    for chunk in answer.parts(index, delta):
                        yield _event(chunk)
            if usage:
                yield _event(answer.closing())
        except TanzimError as error:
            yield _event(ApiError(500, str(error)).body())
        yield "data: [DONE]\n\n"

    async def _interleaved(
        self, requests: list[infer.Request]
    ) -> AsyncGenerator[tuple[int, infer.Delta], None]:
        """Yield the deltas of all choices as they come, with the number of the choice."""
        streams = [self.worker.stream(request) for request in requests]
        waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    index = waiting.pop(task)
                    delta = task.result()
                    yield index, delta
                    if delta.finish_reason is None:
                        waiting[asyncio.ensure_future(anext(streams[index]))] = index
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for stream in streams:
                await stream.aclose()


def _event(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def create_app(
    engine: Engine, renderer: Prompts, config: ServeConfig, models: Mapping[str, str | None]
) -> FastAPI:
    """Make the web application.

    Args:
        engine: the generator, which the server has for itself while it runs.
        renderer: conversation → tokens.
        config: the ``serve`` section.
        models: name that clients ask for → the engine's adapter (None: the base).

    """
    service = Service(engine, renderer, config, models)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    app = FastAPI(title="Tanzim", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        alive = service.worker.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/v1/models")
    async def models(request: Request) -> Json:
        _check_host(request)
        return service.model_list()

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> Json:
        _check_host(request)
        return service.model(name)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> JSONResponse | StreamingResponse:
        _check_host(request)
        requests, answer = await service.prepare(asked)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = service.events(requests, answer, usage=usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(await _unless_gone(request, service.whole(requests, answer)))


def _check_host(request: Request) -> None:
    """Refuse a browser page that reached us under a name of its own (DNS rebinding)."""
    if request.url.hostname not in LOCAL_NAMES:
        raise ApiError(403, f"This server answers on this machine only, not as '{request.url.hostname}'.")


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


def _add_errors(app: FastAPI) -> None:
    def answer(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(ApiError)
    async def api(_: Request, error: ApiError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(refusal(error.errors(), error.body))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
