"""What a client asks of a model, as requests to the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tanzim.core.errors import ConfigError, ModelError, RenderError
from tanzim.core.records import Json, Message
from tanzim.core.seeds import derive
from tanzim.infer import request as infer
from tanzim.infer.pieces import Pieces
from tanzim.serve.access.roles import Caller
from tanzim.serve.backend import Backend
from tanzim.serve.catalogue import Catalogue, Served
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError
from tanzim.serve.middleware.build import build_chain
from tanzim.serve.middleware.seam import Passing, Refused
from tanzim.serve.tool_formats import open_format


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
        shown: likewise.

    """

    limit: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: infer.Grammar | None = None
    shown: tuple[int, ...] = ()


class Service:
    """The models behind the routes.

    Args:
        backend: what answers.
        renderer: conversation → tokens.
        config: limits.
        catalogue: finds what answers for a model's name.

    """

    def __init__(
        self,
        backend: Backend,
        renderer: Prompts,
        config: ServeConfig,
        catalogue: Catalogue,
    ) -> None:
        self._chain = build_chain(config.middleware)
        self.backend, self.catalogue = backend, catalogue
        self._renderer = renderer
        self._config = config
        self.pieces = Pieces(backend.tokenizer)
        self.tool_format = open_format(config.tool_format, backend.tokenizer, renderer.prompt)
        self._rendering = asyncio.Lock()

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
                await self.backend.check(replace(request, adapter=None))
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

    def requests(self, ids: list[int], served: Served, choices: int, wish: Wish) -> list[infer.Request]:
        """Return one request per choice, each further one with a seed of its own."""
        first = infer.Request(
            prompt_ids=ids,
            adapter=served.adapter,
            realm=served.project,
            max_new_tokens=wish.limit or self._config.max_new_tokens,
            temperature=1.0 if wish.temperature is None else wish.temperature,
            top_p=1.0 if wish.top_p is None else wish.top_p,
            seed=wish.seed,
            stop=wish.stop,
            logprobs=wish.logprobs,
            grammar=wish.grammar,
            shown=wish.shown,
        )
        seeds = [
            None if wish.seed is None else derive(wish.seed, "choice", index) for index in range(1, choices)
        ]
        return [first, *(replace(first, seed=seed) for seed in seeds)]
