"""The models behind the routes: their names, and what a client asks of one as requests to the backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tanzim.core.errors import ConfigError, ModelError, RenderError, TanzimError
from tanzim.core.records import Json, Message
from tanzim.core.seeds import derive
from tanzim.infer import request as infer
from tanzim.infer.pieces import Pieces
from tanzim.serve.access.roles import Caller
from tanzim.serve.backend import Backend
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError
from tanzim.serve.middleware.build import build_chain
from tanzim.serve.middleware.seam import Passing, Refused
from tanzim.serve.store.jobs import Models


class Prompts(Protocol):
    """What the server needs of the renderer."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Json] = ()) -> list[int]:
        """Return the generation prompt of a conversation."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a client wants to be answered; None takes the API's default.

    Args:
        limit: longest answer in tokens.
        temperature: as in `infer.Request`.
        top_p: likewise.
        seed: likewise.
        stop: likewise.
        logprobs: likewise.
        grammar: likewise.

    """

    limit: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: infer.Grammar | None = None


class Service:
    """The models behind the routes.

    Args:
        backend: what answers.
        renderer: conversation → tokens.
        config: limits.
        models: name that clients ask for → the backend's adapter (None: the base).
        tuned: the models that jobs made, each for its project.
        root: the server's folder, where their adapters are.

    """

    def __init__(
        self,
        backend: Backend,
        renderer: Prompts,
        config: ServeConfig,
        models: Mapping[str, str | None],
        tuned: Models,
        root: Path,
    ) -> None:
        self._chain = build_chain(config.middleware)
        self.backend = backend
        self._renderer = renderer
        self._config = config
        self._models = dict(models)
        self._loaded: dict[tuple[str, str], int] = {}  # project, name → when it was loaded
        self._tuned, self._root = tuned, root
        self.pieces = Pieces(backend.tokenizer)
        self._created = int(time.time())
        self._rendering = asyncio.Lock()

    def running(self) -> dict[str, float]:
        """Return how many answers are under way."""
        return {"answers": float(self.backend.running)}

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
        own += [
            _model(name, when, project)
            for (owner, name), when in list(self._loaded.items())
            if owner == project
        ]
        tuned = [_model(row["id"], row["created_at"], row["project"]) for row in self._tuned.all(project)]
        return {"object": "list", "data": own + tuned}

    def model(self, project: str, name: str) -> Json:
        """Return one model's entry.

        Raises:
            ApiError: there is none of this name (404).

        """
        if name in self._models:
            return _model(name, self._created, "tanzim")
        if (project, name) in self._loaded:
            return _model(name, self._loaded[project, name], project)
        row = self._tuned.get(project, name)
        if row is None:
            raise self._unknown(name)
        return _model(name, row["created_at"], row["project"])

    def _unknown(self, name: str) -> ApiError:
        known = ", ".join(self._models)
        message = f"The model '{name}' does not exist. Models here: {known}, and those of your own jobs."
        return ApiError(404, message, code="model_not_found", param="model")

    async def adapter(self, project: str, name: str) -> str | None:
        """Return the backend's name for a model, loading it if it is a job's and not there yet.

        Raises:
            ApiError: the project has no such model (404), or it cannot be loaded (500).

        """
        if name in self._models:
            return self._models[name]
        if (project, name) in self._loaded:
            return _loaded_name(project, name)
        row = await asyncio.to_thread(self._tuned.get, project, name)
        if row is None:
            raise self._unknown(name)
        folder = self._root / row["adapter"]
        try:
            await self.backend.add_adapter(name, folder, again=True)
        except ModelError as error:
            raise ApiError(500, f"The model '{name}' cannot be loaded: {error.what}") from error
        return name

    async def load(self, project: str, name: str, folder: Path) -> None:
        """Load an adapter for a project, until it is unloaded or the server ends.

        Raises:
            ApiError: the name is another model's, or the folder holds no adapter for this base (400).

        """
        taken = name in self._models or (project, name) in self._loaded
        if taken or name.startswith("ft:"):  # as the models of jobs are called, today's and tomorrow's
            message = f"'{name}' is, or may become, the name of another model; choose another."
            raise ApiError(400, message, code="invalid_value", param="lora_name")
        try:
            await self.backend.add_adapter(_loaded_name(project, name), folder)
        except TanzimError as error:
            raise ApiError(400, f"The adapter cannot be loaded: {error.what}", param="lora_path") from error
        self._loaded[project, name] = int(time.time())

    async def unload(self, project: str, name: str) -> None:
        """Forget an adapter that `load` loaded.

        Raises:
            ApiError: there is none of this name (404), or it is answering (400).

        """
        when = self._loaded.pop((project, name), None)
        if when is None:
            message = f"The adapter '{name}' was not loaded by /v1/load_lora_adapter."
            raise ApiError(404, message, code="not_found", param="lora_name")
        try:
            await self.backend.remove_adapter(_loaded_name(project, name))
        except ModelError as error:
            self._loaded[project, name] = when
            raise ApiError(400, f"The adapter cannot be unloaded: {error.what}", param="lora_name") from error

    async def passed(self, messages: list[Message], caller: Caller) -> Sequence[Message]:
        """Let the middleware see the prompt; return it as the model shall see it.

        Raises:
            ApiError: it was refused (400).

        """
        try:
            return await asyncio.to_thread(self._chain.prompt, messages, caller)
        except Refused as refused:
            raise ApiError(400, f"The prompt was refused: {refused}.", code="content_filter") from None

    def passings(
        self, messages: Sequence[Message], caller: Caller, choices: int = 1, *, logprobs: bool = False
    ) -> list[Passing | None]:
        """Return what each of the answers to a conversation passes on its way out.

        Raises:
            ApiError: log-probabilities are asked for, and would tell what may not leave (400).

        """
        passings = [self._chain.answer(messages, caller) for _ in range(choices)]
        if logprobs and any(passings):
            message = "logprobs are not given here, since answers may be changed before they leave."
            raise ApiError(400, message, code="unsupported_value", param="logprobs")
        return passings

    async def rendered(
        self, messages: Sequence[Message], tools: Sequence[Json] = (), *, param: str = "messages"
    ) -> list[int]:
        """Return the prompt of a conversation, which the client gave as ``param``.

        Raises:
            ApiError: it cannot be made, or is too long (400).

        """
        try:
            async with self._rendering:
                ids = await asyncio.to_thread(self._renderer.prompt, messages, tools)
        except (RenderError, ModelError) as error:
            raise ApiError(400, str(error), code="invalid_value", param=param) from error
        self.check_length(ids, param)
        return ids

    async def encoded(
        self, prompt: str | list[int], caller: Caller, param: str, *, room: int = 1
    ) -> tuple[list[int], str]:
        """Return a bare text's tokens and the text itself, both after the middleware has seen it.

        Tokens that a client sends stay as they are, unless the middleware changes what they say.

        Raises:
            ApiError: it is empty, too long or refused, or holds a token that the model does not know (400).

        """
        tokenizer = self.backend.tokenizer
        if not isinstance(prompt, str) and max(prompt) >= len(tokenizer):
            message = f"{param}: there is no token {max(prompt)}; the model knows {len(tokenizer)}."
            raise ApiError(400, message, code="invalid_value", param=param)
        async with self._rendering:
            text = prompt if isinstance(prompt, str) else await asyncio.to_thread(tokenizer.decode, prompt)
        passed = "".join(turn.content for turn in await self.passed([Message("user", str(text))], caller))
        if isinstance(prompt, str) or passed != text:
            async with self._rendering:
                ids = list((await asyncio.to_thread(tokenizer, passed, verbose=False))["input_ids"])
        else:
            ids = prompt
        if not ids:
            raise ApiError(400, f"{param}: there is nothing in it.", code="invalid_value", param=param)
        self.check_length(ids, param, room)
        return ids, passed

    async def check_grammar(self, request: infer.Request, param: str) -> None:
        """Refuse a grammar that cannot be kept to.

        Raises:
            ApiError: it is wrong, or asks for what is not known here (400).

        """
        if request.grammar is not None:
            try:
                await self.backend.check(request)
            except ConfigError as error:
                raise ApiError(400, f"{param}: {error.what}", code="invalid_value", param=param) from error

    def check_length(self, ids: Sequence[int], param: str, room: int = 1) -> None:
        """Refuse a prompt that leaves no room for ``room`` tokens.

        Raises:
            ApiError: it does not (400).

        """
        context = self.backend.context_length
        if context is not None and len(ids) + room > context:
            raise ApiError(
                400,
                f"This model's maximum context length is {context} tokens; {param}: {len(ids)}.",
                code="context_length_exceeded",
                param=param,
            )

    def requests(self, ids: list[int], adapter: str | None, choices: int, wish: Wish) -> list[infer.Request]:
        """Return one request per choice, each further one with a seed of its own."""
        first = infer.Request(
            prompt_ids=ids,
            adapter=adapter,
            max_new_tokens=wish.limit or self._config.max_new_tokens,
            temperature=1.0 if wish.temperature is None else wish.temperature,
            top_p=1.0 if wish.top_p is None else wish.top_p,
            seed=wish.seed,
            stop=wish.stop,
            logprobs=wish.logprobs,
            grammar=wish.grammar,
        )
        seeds = [
            None if wish.seed is None else derive(wish.seed, "choice", index) for index in range(1, choices)
        ]
        return [first, *(replace(first, seed=seed) for seed in seeds)]


def _loaded_name(project: str, name: str) -> str:
    """Return what the backend calls an adapter that a client loaded; no model of a client's is called so."""
    return f"loaded/{project}/{name}"


def _model(name: str, created: int, owner: str) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
