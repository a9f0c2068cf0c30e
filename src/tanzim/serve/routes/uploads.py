"""``/v1/uploads``: a file that comes in parts, in any order and several at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI, UploadFile
from sqlalchemy import RowMapping

from tanzim.core.records import Json
from tanzim.serve.access.gate import Trains
from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import ApiError
from tanzim.serve.routes.context import MB, Context, missing, plain_name, too_much
from tanzim.serve.routes.uploads_schema import CompleteRequest, UploadRequest, part_object, upload_object
from tanzim.serve.store.quota import PARTS, FullError
from tanzim.serve.store.store import ROOM


def add(app: FastAPI, context: Context) -> None:
    """Add the routes."""
    uploads, files, config = context.store.uploads, context.store.files, context.config
    completing: dict[str, object] = {}

    @app.post("/v1/uploads")
    def begin(asked: UploadRequest, caller: Trains) -> Json:
        if asked.bytes > config.max_file_mb * MB:
            message = f"The file would be larger than {config.max_file_mb:g} MB."
            raise ApiError(400, message, code="file_too_large", param="bytes")
        most = int(config.max_project_mb * MB)
        name = plain_name(asked.filename)
        try:
            return upload_object(uploads.add(caller.project, name, asked.purpose, asked.bytes, most))
        except FullError as full:
            raise too_much(full, "bytes") from None

    @app.post("/v1/uploads/{id_}/parts")
    def part(id_: str, caller: Trains, data: UploadFile) -> Json:
        _pending(context, caller, id_)
        with _room(context) as path:
            with path.open("wb") as out:
                shutil.copyfileobj(data.file, out, MB)
            if not path.stat().st_size:
                raise ApiError(400, "The part is empty.", code="empty_file", param="data")
            row = uploads.add_part(id_, path)
        if row is None:
            upload = _pending(context, caller, id_)
            message = f"With this part the upload has more than the {upload['bytes']} bytes it declared"
            message += f", or than {PARTS:,} parts."
            raise ApiError(400, message, code="invalid_value", param="data")
        return part_object(row)

    @app.post("/v1/uploads/{id_}/complete")
    def complete(id_: str, asked: CompleteRequest, caller: Trains) -> Json:
        upload = _pending(context, caller, id_)
        sizes = {row["id"]: row["bytes"] for row in uploads.parts(id_)}
        _check(upload, sizes, asked)
        with _alone(completing, id_), _room(context) as path:
            try:
                md5 = uploads.join(asked.part_ids, path)
            except FileNotFoundError:  # it was cancelled, or its hour ended, in between
                _pending(context, caller, id_)
                raise
            if asked.md5 is not None and asked.md5.lower() != md5:
                message = f"The parts together have the MD5 {md5}, not {asked.md5}."
                raise ApiError(400, message, code="invalid_value", param="md5")
            file = files.bring(caller.project, upload["filename"], upload["purpose"], path)
        if not uploads.end(id_, "completed", file):
            files.discard(file["id"])
            _pending(context, caller, id_)
        files.settle(file["id"])
        return upload_object(_upload(context, caller, id_), file)

    @app.post("/v1/uploads/{id_}/cancel")
    def cancel(id_: str, caller: Trains) -> Json:
        _pending(context, caller, id_)
        uploads.end(id_, "cancelled")
        return upload_object(_upload(context, caller, id_))


def _upload(context: Context, caller: Caller, id_: str) -> RowMapping:
    row = context.store.uploads.get(caller.project, id_)
    if row is None:
        raise missing("upload", id_)
    return row


def _pending(context: Context, caller: Caller, id_: str) -> RowMapping:
    """Return an upload that is under way.

    Raises:
        ApiError: there is none of this id (404), or it has ended (400).

    """
    row = _upload(context, caller, id_)
    if row["status"] != "pending":
        raise ApiError(400, f"The upload is {row['status']}; nothing can be done with it.", param="id")
    return row


def _check(upload: RowMapping, sizes: dict[str, int], asked: CompleteRequest) -> None:
    """Refuse parts that do not make up the file.

    Raises:
        ApiError: a part is unknown or there twice, or they have not the declared size together.

    """
    unknown = next((part for part in asked.part_ids if part not in sizes), None)
    if unknown is not None:
        raise ApiError(400, f"The upload has no part '{unknown}'.", code="invalid_value", param="part_ids")
    if len(set(asked.part_ids)) < len(asked.part_ids):
        raise ApiError(400, "A part is there twice.", code="invalid_value", param="part_ids")
    come = sum(sizes[part] for part in asked.part_ids)
    if come != upload["bytes"]:
        message = f"The parts have {come} bytes together; the upload declared {upload['bytes']}."
        raise ApiError(400, message, code="invalid_value", param="part_ids")


@contextmanager
def _alone(completing: dict[str, object], id_: str) -> Iterator[None]:
    """Let nobody else complete the same upload while the block runs: each takes its size on the disk twice.

    Raises:
        ApiError: somebody does (400).

    """
    mine = object()
    if completing.setdefault(id_, mine) is not mine:
        raise ApiError(400, "The upload is being completed already.", param="id")
    try:
        yield
    finally:
        del completing[id_]


@contextmanager
def _room(context: Context) -> Iterator[Path]:
    """Lend a path for a file on the server's disk, for as long as the block runs."""
    with tempfile.TemporaryDirectory(dir=context.store.root, prefix=ROOM) as folder:
        yield Path(folder) / "file"
