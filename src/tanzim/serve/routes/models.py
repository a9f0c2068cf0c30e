"""``/health``, ``/health/ready``, ``/metrics``, ``/openapi.json`` and ``/v1/models``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tanzim.core.records import Json
from tanzim.serve.access.gate import Sees, Trains
from tanzim.serve.drain import draining
from tanzim.serve.observe.health import Readiness
from tanzim.serve.observe.metrics import CONTENT_TYPE
from tanzim.serve.routes.context import Context


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    catalogue = context.service.catalogue

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = context.service.backend.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    readiness = Readiness(context.service.backend, context.store.database, context.supervisor)

    @app.get("/health/ready")
    async def ready(request: Request) -> JSONResponse:
        missing = ["draining"] if draining(request) else await readiness.missing()
        return JSONResponse(
            {"status": "not ready", "missing": missing} if missing else {"status": "ready"},
            503 if missing else 200,
        )

    @app.get("/metrics")
    def metrics(caller: Sees) -> Response:
        return Response(context.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/openapi.json", include_in_schema=False)
    def document(caller: Sees) -> Json:
        return app.openapi()

    @app.get("/v1/models")
    async def models(caller: Sees) -> Json:
        return await catalogue.models(caller.project)

    @app.get("/v1/models/{name:path}")
    async def model(name: str, caller: Sees) -> Json:
        return await catalogue.model(caller.project, name)

    @app.delete("/v1/models/{name:path}")
    async def delete(name: str, caller: Trains) -> Json:
        await catalogue.delete(caller.project, name)
        return {"id": name, "object": "model", "deleted": True}
