"""``/v1/fine_tuning/jobs``.

Specification: https://platform.openai.com/docs/api-reference/fine-tuning
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Query, Request
from sqlalchemy import RowMapping
from starlette.concurrency import run_in_threadpool

from tanzim.core.errors import ConfigError
from tanzim.core.records import Json
from tanzim.serve.access.gate import Gate, Sees, Trains
from tanzim.serve.access.roles import Caller
from tanzim.serve.drain import draining, leaving
from tanzim.serve.errors import ApiError
from tanzim.serve.jobs.schema import ENDED, JobRequest, checkpoint_object, event_object, job_object
from tanzim.serve.jobs.work import Order
from tanzim.serve.routes.context import Context, listed, missing
from tanzim.serve.store.quota import FullError

_SEEDS = 1 << 31
_LOOK = 0.25  # seconds between two looks for new events
Limit = Annotated[int, Query(ge=1, le=100)]


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    jobs = context.store.jobs

    @app.post("/v1/fine_tuning/jobs")
    def create(asked: JobRequest, caller: Trains) -> Json:
        _check(context, caller.project, asked)
        method = asked.chosen.model_dump()
        seed = secrets.randbelow(_SEEDS) if asked.seed is None else asked.seed
        row = {
            "model": asked.model,
            "training_file": asked.training_file,
            "validation_file": asked.validation_file,
            "suffix": asked.suffix,
            "seed": seed,
            "method": method,
            "settings": asked.tanzim.train,
            "metadata": asked.metadata,
        }
        hyperparameters = method[method["type"]]["hyperparameters"]
        order = Order("job", asked.model, seed, hyperparameters, asked.tanzim.train)
        try:
            context.workshop.check(order)
        except ConfigError as error:
            raise ApiError(400, error.what, code="invalid_value", param=error.where) from error
        try:
            return job_object(jobs.add(caller.project, row))
        except FullError as full:
            message = f"The project's {full}. Wait for some to end, or cancel them."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=60) from None

    @app.get("/v1/fine_tuning/jobs")
    def all_jobs(caller: Sees, after: str | None = None, limit: Limit = 20) -> Json:
        found = jobs.list(caller.project, after=after, limit=limit)
        return listed(found, [job_object(row) for row in found.rows])

    @app.get("/v1/fine_tuning/jobs/{id_}")
    def one(id_: str, caller: Sees) -> Json:
        return job_object(_job(context, caller, id_))

    @app.get("/v1/fine_tuning/jobs/{id_}/events")
    async def events(
        id_: str,
        request: Request,
        caller: Sees,
        after: str | None = None,
        limit: Limit = 20,
        follow: bool = False,
    ) -> Json:
        """List events, the newest first; with ``follow`` the oldest first, each page when there is one.

        A client that asks for page after page so sees the events as they come, until the job has ended.
        """
        gate: Gate = request.app.state.gate
        while True:
            job = await run_in_threadpool(_job, context, caller, id_)
            read = partial(jobs.events, id_, after=after, limit=limit, oldest_first=follow)
            found = await run_in_threadpool(read)
            ended = job["status"] in ENDED
            if not follow or found.rows or ended or await request.is_disconnected():
                more = found.more or (follow and not ended)
                return listed(replace(found, more=more), [event_object(row) for row in found.rows])
            if draining(request):  # the client asks again, and finds the server that comes after this one
                raise leaving()
            await asyncio.sleep(_LOOK)
            await gate.still(caller)  # a key that ends, ends what it follows

    @app.get("/v1/fine_tuning/jobs/{id_}/checkpoints")
    def checkpoints(id_: str, caller: Sees, after: str | None = None, limit: Limit = 10) -> Json:
        _job(context, caller, id_)
        found = jobs.checkpoints(id_, after=after, limit=limit)
        return listed(found, [checkpoint_object(row) for row in found.rows])

    def wish(id_: str, caller: Caller, wanted: str, among: tuple[str, ...]) -> Json:
        row = _job(context, caller, id_)
        if not jobs.want(id_, wanted, among):
            message = f"The job has status '{row['status']}'; it cannot be {_DONE[wanted]}."
            raise ApiError(400, message, param="id")
        return job_object(_job(context, caller, id_))

    @app.post("/v1/fine_tuning/jobs/{id_}/cancel")
    def cancel(id_: str, caller: Trains) -> Json:
        return wish(id_, caller, "cancel", ("validating_files", "queued", "running", "paused"))

    @app.post("/v1/fine_tuning/jobs/{id_}/pause")
    def pause(id_: str, caller: Trains) -> Json:
        return wish(id_, caller, "pause", ("validating_files", "queued", "running"))

    @app.post("/v1/fine_tuning/jobs/{id_}/resume")
    def resume(id_: str, caller: Trains) -> Json:
        return wish(id_, caller, "run", ("paused", "running", "validating_files", "queued"))


_DONE = {"cancel": "cancelled", "pause": "paused", "run": "resumed"}


def _job(context: Context, caller: Caller, id_: str) -> RowMapping:
    row = context.store.jobs.get(caller.project, id_)
    if row is None:
        raise missing("fine-tuning job", id_)
    return row


def _check(context: Context, project: str, asked: JobRequest) -> None:
    """Refuse a job whose model or files are not there.

    Raises:
        ApiError: which of them.

    """
    bases = context.service.catalogue.bases
    if asked.model not in bases:
        message = f"The model '{asked.model}' cannot be fine-tuned here. Models: {', '.join(bases)}."
        raise ApiError(400, message, code="model_not_available", param="model")
    for param in ("training_file", "validation_file"):
        id_ = getattr(asked, param)
        if id_ is not None and context.store.files.get(project, id_) is None:
            raise ApiError(400, f"There is no file '{id_}'.", code="file_not_found", param=param)
