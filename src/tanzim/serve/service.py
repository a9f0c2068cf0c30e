"""The models behind the routes: a client's request becomes prompts, and deltas become its answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tanzim.core.errors import ModelError, RenderError, TanzimError
from tanzim.core.records import Json, Message
from tanzim.core.seeds import derive
from tanzim.infer import request as infer
from tanzim.infer.engine import Engine
from tanzim.infer.pieces import Pieces
from tanzim.serve.access.roles import Caller
from tanzim.serve.answer import Answer
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError
from tanzim.serve.middleware.build import build_chain
from tanzim.serve.middleware.seam import Passing, Refused
from tanzim.serve.schema import ChatRequest
from tanzim.serve.store.jobs import Models
from tanzim.serve.worker import Worker


class Prompts(Protocol):
    """What the server needs of the renderer."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the generation prompt of a conversation."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A client's request, ready to be answered.

    Args:
        requests: one for each choice.
        answer: takes what they give.
        passings: what each choice passes on its way out; None for nothing.

    """

    requests: list[infer.Request]
    answer: Answer
    passings: list[Passing | None]


class Service:
    """The models behind the routes.

    Args:
        engine: the generator.
        renderer: conversation → tokens.
        config: limits.
        models: name that clients ask for → the engine's adapter (None: the base).
        tuned: the models that jobs made, each for its project.
        root: the server's folder, where their adapters are.

    """

    def __init__(
        self,
        engine: Engine,
        renderer: Prompts,
        config: ServeConfig,
        models: Mapping[str, str | None],
        tuned: Models,
        root: Path,
    ) -> None:
        self._chain = build_chain(config.middleware)
        self.worker = Worker(engine, config.max_batch)
        self._engine = engine
        self._renderer = renderer
        self._config = config
        self._models = dict(models)
        self._tuned, self._root = tuned, root
        self._pieces = Pieces(engine.tokenizer)
        self._created = int(time.time())
        self._rendering = asyncio.Lock()

    def running(self) -> dict[str, float]:
        """Return how many answers are under way."""
        return {"answers": float(self.worker.running)}

    @property
    def bases(self) -> list[str]:
        """The names of the models that can be fine-tuned."""
        return [name for name, adapter in self._models.items() if adapter is None]

    @property
    def fixed(self) -> list[str]:
        """The names of the models that the server was started with."""
        return list(self._models)

    def model_list(self, project: str) -> Json:
        """Return every model of a project, as OpenAI lists them."""
        own = [_model(name, self._created, "tanzim") for name in self._models]
        tuned = [_model(row["id"], row["created_at"], row["project"]) for row in self._tuned.all(project)]
        return {"object": "list", "data": own + tuned}

    def model(self, project: str, name: str) -> Json:
        """Return one model's entry.

        Raises:
            ApiError: there is none of this name (404).

        """
        if name in self._models:
            return _model(name, self._created, "tanzim")
        row = self._tuned.get(project, name)
        if row is None:
            raise self._unknown(name)
        return _model(name, row["created_at"], row["project"])

    def _unknown(self, name: str) -> ApiError:
        known = ", ".join(self._models)
        message = f"The model '{name}' does not exist. Models here: {known}, and those of your own jobs."
        return ApiError(404, message, code="model_not_found", param="model")

    async def adapter(self, project: str, name: str) -> str | None:
        """Return the engine's name for a model, loading it if it is a job's and not there yet.

        Raises:
            ApiError: the project has no such model (404), or it cannot be loaded (500).

        """
        if name in self._models:
            return self._models[name]
        row = await asyncio.to_thread(self._tuned.get, project, name)
        if row is None:
            raise self._unknown(name)
        folder = self._root / row["adapter"]
        try:
            await self.worker.do(lambda: self._load(name, folder))
        except ModelError as error:
            raise ApiError(500, f"The model '{name}' cannot be loaded: {error.what}") from error
        return name

    def _load(self, name: str, folder: Path) -> None:
        if name not in self._engine.adapters:
            self._engine.add_adapter(name, folder)

    async def prepare(self, caller: Caller, asked: ChatRequest) -> Prepared:
        """Turn a client's request into one request per choice, and the answer they will fill.

        Raises:
            ApiError: the model is unknown (404); the prompt cannot be made, is too long or refused (400).

        """
        adapter = await self.adapter(caller.project, asked.model)
        messages = await self._passed([message.message() for message in asked.messages], caller)
        passings = [self._chain.answer(messages, caller) for _ in range(asked.n or 1)]
        if asked.logprobs and any(passings):
            message = "logprobs are not given here, since answers may be changed before they leave."
            raise ApiError(400, message, code="unsupported_value", param="logprobs")
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
            adapter=adapter,
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
        answer = Answer(asked.model, self._pieces, len(ids), logprobs=bool(asked.logprobs))
        return Prepared(requests, answer, passings)

    async def _passed(self, messages: list[Message], caller: Caller) -> Sequence[Message]:
        """Let the middleware see the prompt."""
        try:
            return await asyncio.to_thread(self._chain.prompt, messages, caller)
        except Refused as refused:
            raise ApiError(400, f"The prompt was refused: {refused}.", code="content_filter") from None

    async def whole(self, prepared: Prepared) -> Json:
        """Return the finished answer."""
        choices: list[list[infer.Delta]] = [[] for _ in prepared.requests]
        async with aclosing(self._interleaved(prepared)) as deltas:
            async for index, delta in deltas:
                choices[index].append(delta)
        return prepared.answer.whole(choices)

    async def events(self, prepared: Prepared, *, usage: bool) -> AsyncIterator[str]:
        """Yield the answer as server-sent events."""
        answer = prepared.answer
        try:
            for index in range(len(prepared.requests)):
                yield _event(answer.opening(index))
            async with aclosing(self._interleaved(prepared)) as deltas:
                async for index, delta in deltas:
                    for chunk in answer.parts(index, delta):
                        yield _event(chunk)
            if usage:
                yield _event(answer.closing())
        except TanzimError as error:
            yield _event(ApiError(500, str(error)).body())
        yield "data: [DONE]\n\n"

    async def _interleaved(self, prepared: Prepared) -> AsyncGenerator[tuple[int, infer.Delta], None]:
        """Yield the deltas of all choices as they come, with the number of the choice."""
        streams = [
            self._guarded(request, passing)
            for request, passing in zip(prepared.requests, prepared.passings, strict=True)
        ]
        waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    index = waiting.pop(task)
                    delta = task.result()
                    prepared.answer.note(delta)
                    yield index, delta
                    if delta.finish_reason is None:
                        waiting[asyncio.ensure_future(anext(streams[index]))] = index
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for stream in streams:
                await stream.aclose()

    async def _guarded(
        self, request: infer.Request, passing: Passing | None
    ) -> AsyncGenerator[infer.Delta, None]:
        """Yield an answer as the middleware lets it out."""
        async with aclosing(self.worker.stream(request)) as deltas:
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


def _model(name: str, created: int, owner: str) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def _event(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
