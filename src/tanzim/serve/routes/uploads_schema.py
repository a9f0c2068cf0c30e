"""The requests and objects of OpenAI's uploads.

Specification: https://platform.openai.com/docs/api-reference/uploads
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import RowMapping

from tanzim.core.records import Json
from tanzim.serve.schema import Strict
from tanzim.serve.store.files import file_object


class UploadRequest(Strict):
    """The body of ``POST /v1/uploads``."""

    filename: str = Field(min_length=1)
    purpose: Literal["fine-tune"]
    bytes: int = Field(ge=1)
    mime_type: str
    expires_after: None = None
    """Of the finished file; files stay until they are deleted."""


class CompleteRequest(Strict):
    """The body of ``POST /v1/uploads/ID/complete``."""

    part_ids: Annotated[list[str], Field(min_length=1)]
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None


def upload_object(row: RowMapping, file: RowMapping | Json | None = None) -> Json:
    """Return an upload as OpenAI's API shows it."""
    shown = ("id", "bytes", "created_at", "expires_at", "filename", "purpose", "status")
    return {
        "object": "upload",
        **{key: row[key] for key in shown},
        "file": None if file is None else file_object(file),
    }


def part_object(row: RowMapping) -> Json:
    """Return a part as OpenAI's API shows it."""
    return {
        "id": row["id"],
        "object": "upload.part",
        "created_at": row["created_at"],
        "upload_id": row["upload"],
    }
