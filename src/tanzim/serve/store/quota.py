"""How much a project may hold. Each is asked inside the transaction that takes it, so that none goes over."""

from __future__ import annotations

from sqlalchemy import Connection, Table, func, select, text

from tanzim.serve.store.tables import files, jobs, uploads

FILES = 10_000  # of a project, with its uploads under way: as many as one list shows
PARTS = 10_000  # of an upload
JOBS = 100  # of a project that have not ended
_LOCK = 0x7A2118  # of projects, among PostgreSQL's advisory locks


class FullError(Exception):
    """A project has no room for more.

    Args:
        reason: of what it has as much as it may.

    """


def check_room(connection: Connection, project: str, size: int, most: int) -> None:
    """Take care that a project may hold another file until the transaction ends.

    Args:
        connection: of a transaction that writes.
        project: whose file it is.
        size: its bytes.
        most: bytes of all the project's files together; uploads under way count as what they declared.

    Raises:
        FullError: it may not.

    """
    _alone(connection, project)
    pending = uploads.c.status == "pending"
    rows = [_sums(connection, files, project), _sums(connection, uploads, project, pending)]
    held, count = (sum(column) for column in zip(*rows, strict=True))
    if held + size > most:
        raise FullError(f"files would hold more than {most / (1 << 20):g} MB")
    if count >= FILES:
        raise FullError(f"files are {FILES:,} already")


def check_queue(connection: Connection, project: str, unfinished: tuple[str, ...]) -> None:
    """Take care that a project may have another job until the transaction ends.

    Raises:
        FullError: it may not.

    """
    _alone(connection, project)
    query = select(func.count()).where(jobs.c.project == project, jobs.c.status.in_(unfinished))
    if int(connection.execute(query).scalar_one()) >= JOBS:
        raise FullError(f"jobs that have not ended are {JOBS} already")


def _alone(connection: Connection, project: str) -> None:
    """Let no other transaction ask for the same project; SQLite lets only one write anyway."""
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:room, hashtext(:project))")
        connection.execute(lock, {"room": _LOCK, "project": project})


def _sums(connection: Connection, table: Table, project: str, *which: object) -> tuple[int, int]:
    query = select(func.coalesce(func.sum(table.c.bytes), 0), func.count()).where(table.c.project == project)
    held, count = connection.execute(query.where(*which)).one()  # type: ignore[arg-type]
    return int(held), int(count)
