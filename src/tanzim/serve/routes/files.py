"""``/v1/files``: what clients bring to train on, and what jobs leave for them.

Specification: https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Literal

from fastapi import FastAPI, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse

from tanzim.core.records import Json
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import Context, listed, missing, project_of
from tanzim.serve.store.files import file_object

_LONGEST = 255  # characters of a file's name


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    files = context.store.files

    @app.post("/v1/files")
    def upload(request: Request, file: UploadFile, purpose: Annotated[Literal["fine-tune"], Form()]) -> Json:
        project = project_of(request)
        name = (file.filename or "file").replace("\\", "/").rsplit("/", 1)[-1][:_LONGEST]
        with tempfile.TemporaryDirectory(dir=context.store.root, prefix=".upload-") as folder:
            path = Path(folder) / "file"
            with path.open("wb") as out:
                shutil.copyfileobj(file.file, out, 1 << 20)
            if not path.stat().st_size:
                raise ApiError(400, "The file is empty.", code="empty_file", param="file")
            return file_object(files.add(project, name, purpose, path))

    @app.get("/v1/files")
    def all_files(
        request: Request,
        purpose: str | None = None,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> Json:
        found = files.list(
            project_of(request), purpose=purpose, after=after, limit=limit, oldest_first=order == "asc"
        )
        return listed(found, [file_object(row) for row in found.rows])

    @app.get("/v1/files/{id_}")
    def one(id_: str, request: Request) -> Json:
        row = files.get(project_of(request), id_)
        if row is None:
            raise missing("file", id_)
        return file_object(row)

    @app.delete("/v1/files/{id_}")
    def delete(id_: str, request: Request) -> Json:
        if not files.delete(project_of(request), id_):
            raise missing("file", id_)
        return {"id": id_, "object": "file", "deleted": True}

    @app.get("/v1/files/{id_}/content", response_model=None)
    def content(id_: str, request: Request) -> StreamingResponse:
        if files.get(project_of(request), id_) is None:
            raise missing("file", id_)
        return StreamingResponse(_parts(files.open(id_)), media_type="application/octet-stream")


def _parts(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while part := stream.read(1 << 20):
            yield part
