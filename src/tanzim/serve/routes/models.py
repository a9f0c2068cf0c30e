"""``/health`` and ``/v1/models``."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tanzim.core.records import Json
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import Context, missing, project_of


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""

    @app.get("/health")
    async def health() -> JSONResponse:
        alive = context.service.worker.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/v1/models")
    def models(request: Request) -> Json:
        return context.service.model_list(project_of(request))

    @app.get("/v1/models/{name:path}")
    def model(name: str, request: Request) -> Json:
        return context.service.model(project_of(request), name)

    @app.delete("/v1/models/{name:path}")
    def delete(name: str, request: Request) -> Json:
        project = project_of(request)
        if name in context.service.fixed:
            raise ApiError(403, f"'{name}' was named when the server was started; it cannot be deleted.")
        if not context.store.models.delete(project, name):
            raise missing("model", name)
        return {"id": name, "object": "model", "deleted": True}
