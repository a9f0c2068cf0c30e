"""``/v1/embeddings``: texts as vectors, by the base or an adapter."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tanzim.core.records import Json
from tanzim.serve.access.gate import Asks
from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import ApiError
from tanzim.serve.observe.requests import said
from tanzim.serve.observe.seen import seen
from tanzim.serve.reply import Tally
from tanzim.serve.routes.context import Context
from tanzim.serve.routes.embeddings_schema import EmbeddingRequest, embeddings_object
from tanzim.serve.routes.respond import accounted, unless_gone
from tanzim.serve.service import Service

MOST = 2048  # texts of one request, as the API has it


def add(app: FastAPI, context: Context) -> None:
    """Add the route."""
    service = context.service

    @app.post("/v1/embeddings")
    async def embed(asked: EmbeddingRequest, request: Request, caller: Asks) -> JSONResponse:
        seen(request).model = asked.model
        served = await service.catalogue.find(caller.project, asked.model)
        rows, texts = await _encoded(service, caller, asked)
        tally = Tally("embd", asked.model, sum(map(len, rows)))
        told = said([{"role": "user", "content": text} for text in texts])

        async def work() -> Json:
            async with served.held():
                vectors = await service.backend.embed(rows, served.adapter)
            return embeddings_object(asked, vectors, tally.prompt_tokens)

        with accounted(context, request, caller, tally, told, streamed=False):
            return JSONResponse(await unless_gone(request, work()))


async def _encoded(
    service: Service, caller: Caller, asked: EmbeddingRequest
) -> tuple[list[list[int]], list[str]]:
    """Return the tokens of each text, and the texts.

    Raises:
        ApiError: there are none or too many, or one is empty, too long or refused (400).

    """
    inputs = asked.inputs
    if not 1 <= len(inputs) <= MOST:
        raise ApiError(400, f"input: {len(inputs)} texts; between 1 and {MOST} can be given.", param="input")
    pairs = [await service.encoded(text, caller, "input", room=0) for text in inputs]
    return [ids for ids, _ in pairs], [text for _, text in pairs]
