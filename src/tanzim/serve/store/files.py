"""The files that clients bring, and those that jobs make for them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import IO

from sqlalchemy import Engine, RowMapping, delete, insert, select

from tanzim.core.records import Json
from tanzim.serve.store.blobs import Marked
from tanzim.serve.store.database import writing
from tanzim.serve.store.ids import new_id
from tanzim.serve.store.page import Page, page
from tanzim.serve.store.quota import FullError, check_room
from tanzim.serve.store.tables import files


class Files:
    """Files, each of one project.

    Args:
        engine: of the database.
        blobs: where their bytes lie.

    """

    def __init__(self, engine: Engine, blobs: Marked) -> None:
        self._engine, self._blobs = engine, blobs

    def add(
        self, project: str, filename: str, purpose: str, path: Path, most: int | None = None
    ) -> RowMapping:
        """Keep a copy of the file at ``path``; when this returns, nothing loses it.

        Args:
            project: whose it is.
            filename: as the client calls it; never used as a path.
            purpose: such as fine-tune.
            path: its bytes.
            most: bytes of all the project's files together; None for any number.

        Raises:
            FullError: the project has no room for it.

        """
        row = self.bring(project, filename, purpose, path)
        try:
            with writing(self._engine) as connection:
                if most is not None:
                    check_room(connection, project, row["bytes"], most)
                connection.execute(insert(files).values(row))
                made = connection.execute(select(files).where(files.c.id == row["id"])).mappings().one()
        except FullError:
            self.discard(row["id"])
            raise
        self.settle(row["id"])
        return made

    def bring(self, project: str, filename: str, purpose: str, path: Path) -> Json:
        """Keep a copy of the bytes at ``path``; return the row that makes a file of them, as `add` does.

        Bytes whose row is never written are swept away in the end (`sweep`).
        """
        id_, digest, size = new_id("file"), hashlib.sha256(), 0
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        self.put(id_, path)
        return {
            "id": id_,
            "project": project,
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "sha256": digest.hexdigest(),
            "created_at": int(time.time()),
        }

    def put(self, id_: str, path: Path) -> None:
        """Keep a copy of the bytes at ``path`` as those of a file."""
        self._blobs.put(blob_key(id_), path)

    def discard(self, id_: str) -> None:
        """Remove bytes that were brought and became no file."""
        self._blobs.delete(blob_key(id_))

    def settle(self, id_: str) -> None:
        """Note that bytes that were brought have become a file."""
        self._blobs.settle(blob_key(id_))

    def sweep(self, before: float) -> int:
        """Remove bytes that were cut off from becoming, or ceasing to be, a file before ``before``."""
        return self._blobs.sweep(self._engine, files.c.id, blob_key(""), before)

    def get(self, project: str, id_: str) -> RowMapping | None:
        """Return a file of a project; None if it has no such."""
        query = select(files).where(files.c.project == project, files.c.id == id_)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().one_or_none()

    def open(self, id_: str) -> IO[bytes]:
        """Open a file's bytes for reading."""
        return self._blobs.open(blob_key(id_))

    def list(
        self, project: str, *, purpose: str | None, after: str | None, limit: int, oldest_first: bool
    ) -> Page:
        """Return a page of a project's files."""
        query = select(files).where(files.c.project == project)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        with self._engine.begin() as connection:
            return page(connection, files, query, after=after, limit=limit, oldest_first=oldest_first)

    def delete(self, project: str, id_: str) -> bool:
        """Forget a file; tell whether there was one."""
        own = files.c.project == project, files.c.id == id_
        with writing(self._engine) as connection:
            if not connection.execute(delete(files).where(*own)).rowcount:
                return False
            self._blobs.mark(blob_key(id_))
        self._blobs.delete(blob_key(id_))
        return True


def file_object(row: RowMapping | Json) -> Json:
    """Return a file as OpenAI's API shows it."""
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
    }


def blob_key(id_: str) -> str:
    """Return where a file's bytes lie."""
    return f"files/{id_}"
