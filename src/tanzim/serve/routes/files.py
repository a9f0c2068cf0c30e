"""``/v1/files``: what clients bring to train on, and what jobs leave for them.

Specification: https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated, Literal

from fastapi import FastAPI, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tanzim.core.records import Json
from tanzim.serve.access.gate import Sees, Trains
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import MB, Context, listed, missing, plain_name, too_much
from tanzim.serve.store.files import file_object
from tanzim.serve.store.quota import FullError
from tanzim.serve.store.store import ROOM


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    files, most = context.store.files, int(context.config.max_project_mb * MB)

    @app.post("/v1/files")
    def upload(caller: Trains, file: UploadFile, purpose: Annotated[Literal["fine-tune"], Form()]) -> Json:
        name = plain_name(file.filename or "")
        with tempfile.TemporaryDirectory(dir=context.store.root, prefix=ROOM) as folder:
            path = Path(folder) / "file"
            with path.open("wb") as out:
                shutil.copyfileobj(file.file, out, MB)
            if not path.stat().st_size:
                raise ApiError(400, "The file is empty.", code="empty_file", param="file")
            try:
                return file_object(files.add(caller.project, name, purpose, path, most))
            except FullError as full:
                raise too_much(full, "file") from None

    @app.get("/v1/files")
    def all_files(
        caller: Sees,
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> Json:
        found = files.list(
            caller.project, purpose=purpose, after=after, limit=limit, oldest_first=order == "asc"
        )
        return listed(found, [file_object(row) for row in found.rows])

    @app.get("/v1/files/{id_}")
    def one(id_: str, caller: Sees) -> Json:
        row = files.get(caller.project, id_)
        if row is None:
            raise missing("file", id_)
        return file_object(row)

    @app.delete("/v1/files/{id_}")
    def delete(id_: str, caller: Trains) -> Json:
        if not files.delete(caller.project, id_):
            raise missing("file", id_)
        return {"id": id_, "object": "file", "deleted": True}

    @app.get("/v1/files/{id_}/content", response_model=None)
    def content(id_: str, caller: Trains) -> StreamingResponse:
        if files.get(caller.project, id_) is None:
            raise missing("file", id_)
        try:
            stream = files.open(id_)
        except FileNotFoundError:  # it was deleted in between
            raise missing("file", id_) from None
        return StreamingResponse(_parts(stream), media_type="application/octet-stream")


async def _parts(stream: IO[bytes]) -> AsyncIterator[bytes]:
    with stream:
        while part := await run_in_threadpool(stream.read, MB):
            yield part
