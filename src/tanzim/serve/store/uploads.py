"""Files that come in parts: kept until they are complete, cancelled or an hour old."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, RowMapping, delete, func, insert, select, update

from tanzim.core.records import Json
from tanzim.serve.store.blobs import Marked
from tanzim.serve.store.database import writing
from tanzim.serve.store.ids import new_id
from tanzim.serve.store.quota import PARTS, check_room
from tanzim.serve.store.tables import files, parts, uploads

LIFE = 3600  # seconds until an upload that is not complete ends
# Uploads that ended when somebody pulled the plug.
_LEFT = select(parts.c.upload).join(uploads).where(uploads.c.status != "pending").distinct()


class Uploads:
    """Uploads, each of one project.

    Args:
        engine: of the database.
        blobs: where the bytes of parts lie.

    """

    def __init__(self, engine: Engine, blobs: Marked) -> None:
        self._engine, self._blobs = engine, blobs

    def add(self, project: str, filename: str, purpose: str, size: int, most: int) -> RowMapping:
        """Begin an upload.

        What is declared counts as held, so that many uploads at once do not come to more together.

        Raises:
            FullError: the project would then hold more than ``most`` bytes.

        """
        self.sweep()
        id_, now = new_id("upload"), int(time.time())
        row = {
            "id": id_,
            "project": project,
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "status": "pending",
            "created_at": now,
            "expires_at": now + LIFE,
        }
        with writing(self._engine) as connection:
            check_room(connection, project, size, most)
            connection.execute(insert(uploads).values(row))
            return connection.execute(select(uploads).where(uploads.c.id == id_)).mappings().one()

    def get(self, project: str, id_: str) -> RowMapping | None:
        """Return an upload of a project as it is now; None if it has no such."""
        self.sweep()
        query = select(uploads).where(uploads.c.project == project, uploads.c.id == id_)
        with self._engine.begin() as connection:
            return connection.execute(query).mappings().one_or_none()

    def add_part(self, id_: str, path: Path) -> RowMapping | None:
        """Keep the bytes at ``path`` as a part; None if the upload has ended or is full."""
        part, size = new_id("part"), path.stat().st_size
        self._blobs.put(_key(part), path)
        with writing(self._engine) as connection:
            own = select(uploads).where(uploads.c.id == id_).with_for_update()
            upload = connection.execute(own).mappings().one()
            sizes = select(func.coalesce(func.sum(parts.c.bytes), 0), func.count())
            come, count = connection.execute(sizes.where(parts.c.upload == id_)).one()
            within = int(come) + size <= upload["bytes"] and count < PARTS
            fits = upload["status"] == "pending" and within
            if fits:
                row = {"id": part, "upload": id_, "bytes": size, "created_at": int(time.time())}
                connection.execute(insert(parts).values(row))
                made = connection.execute(select(parts).where(parts.c.id == part)).mappings().one()
        if not fits:
            self._blobs.delete(_key(part))
            return None
        self._blobs.settle(_key(part))
        return made

    def parts(self, id_: str) -> Sequence[RowMapping]:
        """Return the parts of an upload, the oldest first."""
        with self._engine.begin() as connection:
            query = select(parts).where(parts.c.upload == id_).order_by(parts.c.number)
            return connection.execute(query).mappings().all()

    def join(self, ids: Sequence[str], path: Path) -> str:
        """Write parts one after another into a file; return the MD5 of it, in hex."""
        digest = hashlib.md5(usedforsecurity=False)
        with path.open("wb") as out:
            for part in ids:
                with closing(self._blobs.open(_key(part))) as stream:
                    shutil.copyfileobj(stream, out, 1 << 20)
        with path.open("rb") as joined:
            while block := joined.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def end(self, id_: str, status: str, file: Json | None = None) -> bool:
        """Give an upload that is under way its last status, and forget its parts; tell whether it was.

        Args:
            id_: of the upload.
            status: completed, cancelled or expired.
            file: the row of the file that it became (`Files.bring`); both are written, or neither.

        """
        with writing(self._engine) as connection:
            change = update(uploads).where(uploads.c.id == id_, uploads.c.status == "pending")
            made = None if file is None else file["id"]
            if not connection.execute(change.values(status=status, file=made)).rowcount:
                return False
            if file is not None:
                connection.execute(insert(files).values(file))
        self._forget(id_)
        return True

    def sweep(self) -> None:
        """End the uploads whose time is over, and forget what is left of those that had ended before."""
        late = select(uploads.c.id).where(uploads.c.status == "pending", uploads.c.expires_at <= time.time())
        with self._engine.begin() as connection:
            over = connection.execute(late).scalars().all()
            left = connection.execute(_LEFT).scalars().all()
        for id_ in over:
            self.end(id_, "expired")
        for id_ in left:
            self._forget(id_)

    def sweep_parts(self, before: float) -> int:
        """Remove bytes that were cut off from becoming, or ceasing to be, a part before ``before``."""
        return self._blobs.sweep(self._engine, parts.c.id, _key(""), before)

    def _forget(self, id_: str) -> None:
        gone = [part["id"] for part in self.parts(id_)]
        for part in gone:
            self._blobs.delete(_key(part))
        with writing(self._engine) as connection:
            connection.execute(delete(parts).where(parts.c.upload == id_))


def _key(part: str) -> str:
    return f"parts/{part}"
