"""``/v1/responses``: the newer form of a conversation; answers are not kept."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tanzim.serve.access.gate import Asks
from tanzim.serve.access.roles import Caller
from tanzim.serve.flow import Prepared
from tanzim.serve.observe.requests import said
from tanzim.serve.observe.seen import seen
from tanzim.serve.routes.context import Context
from tanzim.serve.routes.respond import respond
from tanzim.serve.routes.responses_answer import ResponseAnswer
from tanzim.serve.routes.responses_schema import ResponseRequest
from tanzim.serve.service import Service, Wish


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/responses", response_model=None)
    async def answer(
        asked: ResponseRequest, request: Request, caller: Asks
    ) -> JSONResponse | StreamingResponse:
        seen(request).model = asked.model
        prepared = await _prepare(service, caller, asked)
        return await respond(context, request, caller, prepared, stream=bool(asked.stream))


async def _prepare(service: Service, caller: Caller, asked: ResponseRequest) -> Prepared:
    """Turn a client's request into one to the engine, and the answer it will fill.

    Raises:
        ApiError: the model is unknown (404); the prompt cannot be made, is too long or refused (400).

    """
    served = await service.catalogue.find(caller.project, asked.model)
    messages = await service.passed(asked.messages, caller)
    passings = service.passings(messages, caller)
    ids = await service.rendered(messages, asked.prompt_tools, param="input")
    format = service.tool_format
    wish = Wish(
        asked.max_output_tokens,
        asked.temperature,
        asked.top_p,
        grammar=asked.grammar(format),
        shown=format.shown if asked.prompt_tools else (),
    )
    told = said([{"role": turn.role, "content": turn.content} for turn in asked.messages])
    requests = service.requests(ids, served, 1, wish)
    await service.check_grammar(requests[0], "tools")
    return Prepared(requests, ResponseAnswer(asked, len(ids), format), passings, told, served)
