"""``/health``, ``/metrics``, ``/openapi.json`` and ``/v1/models``."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from tanzim.core.records import Json
from tanzim.serve.access.gate import Sees, Trains
from tanzim.serve.errors import ApiError
from tanzim.serve.observe.metrics import CONTENT_TYPE
from tanzim.serve.routes.context import Context, missing


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = context.service.backend.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics")
    def metrics(caller: Sees) -> Response:
        return Response(context.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/openapi.json", include_in_schema=False)
    def document(caller: Sees) -> Json:
        return app.openapi()

    @app.get("/v1/models")
    def models(caller: Sees) -> Json:
        return context.service.model_list(caller.project)

    @app.get("/v1/models/{name:path}")
    def model(name: str, caller: Sees) -> Json:
        return context.service.model(caller.project, name)

    @app.delete("/v1/models/{name:path}")
    def delete(name: str, caller: Trains) -> Json:
        if name in context.service.fixed:
            raise ApiError(403, f"'{name}' was named when the server was started; it cannot be deleted.")
        if not context.store.models.delete(caller.project, name):
            raise missing("model", name)
        return {"id": name, "object": "model", "deleted": True}
