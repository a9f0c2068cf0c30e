"""The audit trail: who changed what, and who was turned away.

What somebody without a key sends is refused before it can change anything; of it only the refusals are
written, and of those no more than `tanzim.serve.access.limits.REFUSALS` a minute from an address, so that
nobody fills the database from outside.
"""

from __future__ import annotations

import time

from sqlalchemy import Engine, insert, select
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tanzim.serve.access.roles import Caller
from tanzim.serve.errors import answer, away
from tanzim.serve.store.database import AWAY, writing
from tanzim.serve.store.page import Page, page
from tanzim.serve.store.tables import audit

_READS = ("GET", "HEAD", "OPTIONS")
# They change nothing; their log is another matter.
_ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")


class Trail:
    """The entries, which are never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, caller: Caller | None, address: str, method: str, path: str, status: int) -> None:
        """Write an entry."""
        row = {
            "at": int(time.time()),
            "key": caller.key if caller else None,
            "project": caller.project if caller else None,
            "address": address,
            "method": method[:16],
            "path": path,
            "status": status,
        }
        with writing(self._engine) as connection:
            connection.execute(insert(audit).values(row))

    def list(self, project: str, *, limit: int) -> Page:
        """Return the newest entries of a project."""
        query = select(audit).where(audit.c.project == project)
        with self._engine.begin() as connection:
            return page(connection, audit, query, limit=limit)


class Audit:
    """Writes an entry for each request that changes something or is turned away, before its answer leaves.

    Args:
        app: the application.
        trail: where to.

    """

    def __init__(self, app: ASGIApp, trail: Trail) -> None:
        self._app, self._trail = app, trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        lost = False

        async def noted(message: Message) -> None:
            nonlocal lost
            if message["type"] == "http.response.start":
                status, method, path = message["status"], scope["method"], scope["path"]
                caller = scope.get("state", {}).get("caller")
                changes = method not in _READS and path not in _ANSWERS
                if status in (401, 403) or (changes and caller is not None):
                    address, shown = (scope.get("client") or ("",))[0], _plain(path)
                    try:
                        await run_in_threadpool(self._trail.add, caller, address, method, shown, status)
                    except AWAY as error:  # what is not in the trail is not confirmed
                        lost = True
                        await answer(away(error))(scope, receive, send)
            if not lost:
                await send(message)

        await self._app(scope, receive, noted)


def _plain(path: str) -> str:
    """Return a path as it is written down: of bounded length, and in one line whoever prints it."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in path[:500])
