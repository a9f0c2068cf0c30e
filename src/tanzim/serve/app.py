"""The OpenAI-compatible server: chat with base and tuned models, files, and fine-tuning jobs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from tanzim.serve.access.gate import Gate, GatedRoute, needs_key
from tanzim.serve.access.limits import Limits
from tanzim.serve.access.trail import Audit
from tanzim.serve.backend import Backend
from tanzim.serve.bounds import FORM, BodyBound
from tanzim.serve.catalogue import Catalogue
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError, answer, away, files_away, no_room, refusal
from tanzim.serve.jobs.executor import open_executor
from tanzim.serve.jobs.supervisor import Supervisor
from tanzim.serve.jobs.work import Workshop
from tanzim.serve.observe.afterwards import Afterwards
from tanzim.serve.observe.metrics import Measure, Metrics
from tanzim.serve.observe.requests import RequestLog
from tanzim.serve.observe.seen import seen
from tanzim.serve.observe.traces import Trace, Traces
from tanzim.serve.routes import chat, completions, embeddings, files, jobs, lora, models, responses, uploads
from tanzim.serve.routes.context import Context
from tanzim.serve.service import Prompts, Service
from tanzim.serve.shelf import Shelf
from tanzim.serve.store.blobs import BlobsAwayError
from tanzim.serve.store.database import AWAY
from tanzim.serve.store.store import Store


def create_app(
    backend: Backend,
    renderer: Prompts,
    config: ServeConfig,
    names: Mapping[str, str | None],
    store: Store,
    workshop: Workshop,
    shelf: Shelf | None = None,
) -> FastAPI:
    """Make the web application.

    Args:
        backend: what answers, which the server has for itself while it runs.
        renderer: conversation → tokens.
        config: the ``serve`` section.
        names: name that clients ask for → the backend's adapter (None: the base).
        store: what the server remembers; closed when it ends.
        workshop: how jobs are configured and run.
        shelf: the adapter repository, if there is one; closed when the server ends.

    """
    catalogue = Catalogue(backend, names, store.models, store.root, shelf)
    service = Service(backend, renderer, config, catalogue)
    supervisor = Supervisor(
        store.jobs,
        store.files,
        store.root / "jobs",
        workshop,
        open_executor(config.executor),
        config.max_jobs,
        store.tidy,
    )

    metrics = Metrics(lambda: {**_jobs(store), **backend.now}, names)
    afterwards = Afterwards()
    log = RequestLog(config.request_log, store.root, afterwards, metrics.lost.labels("request_log").inc)
    lost = metrics.lost.labels("traces").inc
    traces = None if config.traces is None else Traces(config.traces, afterwards, lost)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        afterwards.start()
        backend.start()
        supervisor.start()
        yield
        supervisor.stop()
        backend.stop()
        if shelf is not None:
            shelf.close()
        await asyncio.to_thread(afterwards.stop)
        if traces is not None:
            await asyncio.to_thread(traces.close)
        store.close()

    app = FastAPI(
        title="Tanzim",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        form_limits=FORM,
    )
    app.router.route_class = GatedRoute
    app.state.gate = Gate(store.keys, Limits(), required=needs_key(config))
    app.add_middleware(Audit, trail=store.trail)
    app.add_middleware(Measure, metrics=metrics)
    app.add_middleware(BodyBound, config=config)
    if traces is not None:
        app.add_middleware(Trace, traces=traces)
    _add_errors(app)
    context = Context(service, store, workshop, config, metrics, log, supervisor)
    for family in (models, chat, completions, responses, embeddings, files, uploads, jobs, lora):
        family.add(app, context)
    return app


def _jobs(store: Store) -> dict[str, dict[str, float]]:
    """Return how many jobs there are of each status; nothing while the database is away."""
    try:
        return {"jobs": store.jobs.counts()}
    except AWAY:
        return {}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api(request: Request, error: ApiError) -> JSONResponse:
        seen(request).fault = error.code
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await api(request, refusal(error.errors(), error.body))

    @app.exception_handler(UnicodeEncodeError)
    async def half(_: Request, error: UnicodeEncodeError) -> JSONResponse:
        return answer(
            ApiError(400, "A text holds half a character (a lone surrogate).", code="invalid_value")
        )

    @app.exception_handler(DataError)
    async def unstorable(
        _: Request, error: DataError
    ) -> JSONResponse:  # such as NUL in a text, on PostgreSQL
        return answer(ApiError(400, "A value cannot be what it is given for.", code="invalid_value"))

    async def gone(_: Request, error: Exception) -> JSONResponse:
        return answer(away(error))

    for kind in AWAY:
        app.add_exception_handler(kind, gone)

    @app.exception_handler(BlobsAwayError)
    async def nowhere(_: Request, error: BlobsAwayError) -> JSONResponse:
        return answer(files_away())

    @app.exception_handler(OSError)
    async def full(_: Request, error: OSError) -> JSONResponse:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return answer(no_room())

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:  # its traceback is in the server's log
        return answer(ApiError(500, f"The server failed ({type(error).__name__}); its log says how."))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return answer(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
