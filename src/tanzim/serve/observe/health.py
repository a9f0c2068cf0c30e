"""Whether the server can do its work now: what Kubernetes and load balancers ask."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import Engine

from tanzim.serve.backend import Backend
from tanzim.serve.jobs.supervisor import Supervisor
from tanzim.serve.store.database import is_current

_FRESH = 1.0  # seconds that an answer of the database counts for all who ask
_PATIENCE = 3.0  # seconds that its answer may take


class Readiness:
    """Looks at the parts that requests need; asked by anybody, any number of times, it stays cheap.

    Args:
        backend: what answers.
        database: where rows are.
        supervisor: of the jobs.

    """

    def __init__(self, backend: Backend, database: Engine, supervisor: Supervisor) -> None:
        self._backend, self._database, self._supervisor = backend, database, supervisor
        self._looked: tuple[float, bool] = (float("-inf"), False)
        self._looking: asyncio.Task[bool] | None = None

    async def missing(self) -> list[str]:
        """Return the names of the parts that do not work."""
        found = {
            "generation": self._backend.ready,
            "database": await self._connected(),
            "jobs": self._supervisor.alive,
        }
        return [name for name, works in found.items() if not works]

    async def _connected(self) -> bool:
        when, works = self._looked
        if time.monotonic() - when < _FRESH:
            return works
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(is_current, self._database))
            self._looking.add_done_callback(self._note)
        done, _ = await asyncio.wait([self._looking], timeout=_PATIENCE)
        return bool(done) and self._looked[1]

    def _note(self, task: asyncio.Task[bool]) -> None:
        works = not task.cancelled() and task.exception() is None and task.result()
        self._looked = time.monotonic(), works
