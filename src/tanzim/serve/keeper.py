"""Which adapters the backend knows: those that a name stands for or a request holds, and no others.

Each adapter has a name of its own towards the backend, which never changes its meaning. So one can take
another's place at any moment: who holds the old one ends on it, and it goes when the last of them has ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tanzim.core.errors import TanzimError
from tanzim.serve.backend import Backend


@dataclass(frozen=True, slots=True)
class Place:
    """What answers for a model.

    Args:
        adapter: what the backend calls it; None is the base.
        folder: where it lies; None where the backend always has it.

    """

    adapter: str | None
    folder: Path | None = None


class Keeper:
    """Tells the backend of adapters, for the thread of the event loop.

    Args:
        backend: what answers.

    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stood: dict[tuple[str, str], str] = {}  # project and name → the adapter
        self._standing: Counter[str] = Counter()  # adapters, for how many names
        self._held: Counter[str] = Counter()
        self._going: dict[str, asyncio.Task[None]] = {}

    def stands(self, project: str, name: str, adapter: str | None) -> None:
        """Note what a model's name stands for from now on; None for nothing.

        Args:
            project: whose model it is.
            name: what requests call it.
            adapter: what the backend calls what answers for it.

        """
        before = self._stood.pop((project, name), None)
        if adapter is not None:
            self._stood[project, name] = adapter
            self._standing[adapter] += 1
        if before is not None:
            _less(self._standing, before)
            self._let_go(before)

    async def ensure(self, place: Place) -> None:
        """Let the backend know an adapter.

        Raises:
            TanzimError: it cannot be asked for.

        """
        if place.adapter is None or place.folder is None:
            return
        while going := self._going.get(place.adapter):
            await asyncio.wait({going})
        await self._backend.add_adapter(place.adapter, place.folder, again=True)

    @asynccontextmanager
    async def hold(self, place: Place) -> AsyncIterator[None]:
        """Keep an adapter known inside the block.

        Raises:
            TanzimError: it cannot be asked for any more.

        """
        adapter = place.adapter
        if adapter is None or place.folder is None:
            yield
            return
        self._held[adapter] += 1
        try:
            await self.ensure(place)  # it may have gone since it was found
            yield
        finally:
            _less(self._held, adapter)
            self._let_go(adapter)

    def _let_go(self, adapter: str) -> None:
        if self._standing[adapter] or self._held[adapter] or adapter in self._going:
            return
        self._going[adapter] = asyncio.create_task(self._remove(adapter))

    async def _remove(self, adapter: str) -> None:
        try:
            await self._backend.remove_adapter(adapter)
        except TanzimError:
            pass  # it was never asked for, or the backend has ended
        finally:
            del self._going[adapter]


def _less(counted: Counter[str], adapter: str) -> None:
    counted[adapter] -= 1
    if not counted[adapter]:
        del counted[adapter]
