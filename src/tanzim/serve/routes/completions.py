"""``/v1/completions``: texts that the model goes on with, without a conversation."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.core.records import Message
from tanzim.infer.request import Request as Generation
from tanzim.serve.access.gate import Asks
from tanzim.serve.access.roles import Caller
from tanzim.serve.flow import Prepared
from tanzim.serve.middleware.seam import Passing
from tanzim.serve.observe.requests import said
from tanzim.serve.observe.seen import seen
from tanzim.serve.routes.completions_answer import TextAnswer
from tanzim.serve.routes.completions_schema import LONGEST, CompletionRequest
from tanzim.serve.routes.context import Context
from tanzim.serve.routes.respond import respond
from tanzim.serve.service import Service, Wish


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/completions", response_model=None)
    async def complete(
        asked: CompletionRequest, request: Request, caller: Asks
    ) -> JSONResponse | StreamingResponse:
        seen(request).model = asked.model
        prepared = await _prepare(service, caller, asked)
        return await respond(context, request, caller, prepared, stream=bool(asked.stream))


async def _prepare(service: Service, caller: Caller, asked: CompletionRequest) -> Prepared:
    """Turn a client's request into one request per prompt and choice, and the answer they will fill.

    Raises:
        ApiError: the model is unknown (404); a prompt is empty, too long or refused (400).

    """
    served = await service.catalogue.find(caller.project, asked.model)
    choices = asked.n or 1
    wish = Wish(
        asked.max_tokens or LONGEST, asked.temperature, asked.top_p, asked.seed, asked.stops, asked.logprobs
    )
    requests: list[Generation] = []
    passings: list[Passing | None] = []
    texts: list[str] = []
    prompt_tokens = 0
    for prompt in asked.prompts:
        ids, text = await service.encoded(prompt, caller, "prompt")
        requests += service.requests(ids, served, choices, wish)
        turns = [Message("user", text)]
        passings += service.passings(turns, caller, choices, logprobs=asked.logprobs is not None)
        texts.append(text)
        prompt_tokens += len(ids)
    answer = TextAnswer(
        asked.model,
        service.pieces,
        prompt_tokens,
        len(requests),
        logprobs=asked.logprobs is not None,
        usage=bool(asked.stream_options and asked.stream_options.include_usage),
    )
    told = said([{"role": "user", "content": text} for text in texts])
    return Prepared(requests, answer, passings, told, served)
