"""The adapter repository behind the server: which of its adapters fit this base, and their files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tanzim.adapters.folder import WEIGHTS
from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Entry, State
from tanzim.core.errors import RunError

_FRESH = 1.0  # seconds for which what was read is taken for the present
_PATIENCE = 2.0  # seconds to wait for a repository that does not answer, where an older state is known
_log = logging.getLogger("tanzim.serve")
Done = TypeVar("Done")


class Shelf:
    """Follows one repository, for the thread of the event loop.

    What is far away is read in threads of its own, so that nobody waits for it who asks for something else.

    Args:
        repository: which.
        base_hash: SHA-256 of the base's weights; adapters for others do not exist here.

    """

    def __init__(self, repository: Repository, base_hash: str) -> None:
        self._repository, self._base_hash = repository, base_hash
        self._state: State | None = None
        self._read_at = 0.0  # by time.monotonic
        self._looking: asyncio.Task[None] | None = None
        self._folders: dict[str, Path] = {}
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._looker = ThreadPoolExecutor(1, "tanzim-repository")
        self._fetcher = ThreadPoolExecutor(2, "tanzim-adapters")

    def close(self) -> None:
        """Let go of the threads."""
        self._looker.shutdown(wait=False, cancel_futures=True)
        self._fetcher.shutdown(wait=False, cancel_futures=True)

    async def find(self, name: str, *, now: bool = False) -> Entry | None:
        """Return the adapter that a model's name stands for; None if there is none for this base.

        Args:
            name: a task, for the adapter that is promoted for it, or ``name@version``.
            now: look again, however fresh what is known.

        Raises:
            RunError: the repository cannot be read, and never could.

        """
        state = await self._present(now=now)
        entry = _stands_for(state, name)
        if entry is None and not now:  # it may have been made this moment
            entry = _stands_for(await self._present(now=True), name)
        return entry if entry is not None and entry.base_hash == self._base_hash else None

    async def models(self) -> list[tuple[str, Entry]]:
        """Return every model's name and what it stands for: tasks first, then all versions.

        Raises:
            RunError: the repository cannot be read, and never could.

        """
        state = await self._present()
        promoted = [(task, _stands_for(state, task)) for task in sorted(state.tasks)]
        named = [*promoted, *((entry.ref, entry) for entry in state.alive())]
        return [(name, entry) for name, entry in named if entry and entry.base_hash == self._base_hash]

    async def folder(self, entry: Entry) -> Path:
        """Return a folder on this machine with an adapter's files, which are fetched once.

        Raises:
            RunError: they are missing or damaged, or the repository cannot be reached.

        """
        known = self._folders.get(entry.id)
        if known is not None and (known / WEIGHTS).is_file():
            return known
        task = self._fetching.get(entry.id)
        if task is None:
            task = self._fetching[entry.id] = asyncio.create_task(self._fetch(entry))
        return await asyncio.shield(task)  # others wait for the same

    async def _fetch(self, entry: Entry) -> Path:
        try:
            folder = await _in(self._fetcher, lambda: self._repository.folder(entry))
        finally:
            del self._fetching[entry.id]
        self._folders[entry.id] = folder
        return folder

    async def _present(self, *, now: bool = False) -> State:
        if now or self._state is None or time.monotonic() - self._read_at > _FRESH:
            if now and self._looking is not None:  # it may have begun too early
                await asyncio.wait({self._looking}, timeout=_PATIENCE)
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            looking = self._looking
            if self._state is None:
                await asyncio.shield(looking)
            else:
                await asyncio.wait({looking}, timeout=_PATIENCE)
        assert self._state is not None
        return self._state

    async def _look(self) -> None:
        try:
            before = self._state
            read = self._repository.state if before is None else lambda: self._repository.advance(before)
            self._state = await _in(self._looker, read)
        except RunError as error:
            if self._state is None:
                raise
            _log.warning("the adapter repository: %s; what was known stands", error.what)
        finally:
            self._looking = None
            self._read_at = time.monotonic()


async def _in(pool: ThreadPoolExecutor, work: Callable[[], Done]) -> Done:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _stands_for(state: State, name: str) -> Entry | None:
    history = state.tasks.get(name)
    entry = state.entries.get(history[-1] if history else name)
    return None if entry is None or entry.deleted is not None else entry


def added_at(entry: Entry) -> int:
    """Return when an adapter was added, in seconds since 1970."""
    return int(datetime.fromisoformat(entry.created).timestamp())
