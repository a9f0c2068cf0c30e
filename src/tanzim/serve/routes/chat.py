"""``/v1/chat/completions``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.serve.access.gate import Asks
from tanzim.serve.access.roles import Caller
from tanzim.serve.answer import Answer
from tanzim.serve.flow import Prepared
from tanzim.serve.observe.requests import said
from tanzim.serve.observe.seen import seen
from tanzim.serve.routes.context import Context
from tanzim.serve.routes.respond import respond
from tanzim.serve.schema import ChatRequest
from tanzim.serve.service import Service, Wish


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request, caller: Asks) -> JSONResponse | StreamingResponse:
        seen(request).model = asked.model
        prepared = await prepare(service, caller, asked)
        return await respond(context, request, caller, prepared, stream=bool(asked.stream))


async def prepare(service: Service, caller: Caller, asked: ChatRequest) -> Prepared:
    """Turn a client's request into one request per choice, and the answer they will fill.

    Raises:
        ApiError: the model is unknown (404); the prompt cannot be made, is too long or refused (400).

    """
    served = await service.catalogue.find(caller.project, asked.model)
    messages = await service.passed([message.message() for message in asked.messages], caller)
    choices = asked.n or 1
    passings = service.passings(messages, caller, choices, logprobs=bool(asked.logprobs))
    ids = await service.rendered(messages, asked.prompt_tools)
    tools = service.tool_format if asked.prompt_tools else None
    wish = Wish(
        asked.limit,
        asked.temperature,
        asked.top_p,
        asked.seed,
        asked.stops,
        asked.top_logprobs or 0 if asked.logprobs else None,
        asked.grammar(service.tool_format),
        () if tools is None else tools.shown,
    )
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    answer = Answer(
        asked.model,
        service.pieces,
        len(ids),
        choices,
        logprobs=bool(asked.logprobs),
        usage=usage,
        tools=tools,
    )
    told = said([message.model_dump(exclude_none=True) for message in asked.messages])
    requests = service.requests(ids, served, choices, wish)
    held_by = "tools" if wish.grammar is not None and wish.grammar.type == "lark" else "response_format"
    await service.check_grammar(requests[0], held_by)
    return Prepared(requests, answer, passings, told, served)
