"""Adapters that take one another's place while they are held: known as long as needed, and not longer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tanzim.core.errors import ModelError
from tanzim.infer.residents import GoneError
from tanzim.serve.keeper import Keeper, Place


class Slow:
    """A backend that takes its time, in any order."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.known: set[str] = set()
        self.added = 0

    async def _wait(self) -> None:
        for _ in range(self._draw.randrange(4)):
            await asyncio.sleep(0)

    async def add_adapter(self, name: str, folder: Path, *, again: bool = False) -> None:
        await self._wait()
        if not folder.is_dir():
            raise GoneError("gone")
        assert again
        self.added += name not in self.known
        self.known.add(name)
        await self._wait()

    async def remove_adapter(self, name: str) -> None:
        await self._wait()
        if name not in self.known:
            raise ModelError("there is none")
        self.known.remove(name)
        await self._wait()


def made(backend: Slow) -> Keeper:
    whole: Any = backend
    return Keeper(whole)


async def settled(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to this")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_held_is_known_and_nothing_else_stays(seed: int, tmp_path: Path) -> None:
    draw, backend = random.Random(seed), Slow(seed)
    keeper = made(backend)
    places = [Place(f"v{number}", tmp_path) for number in range(3)]
    now = places[0]
    answered = []

    def switch() -> None:
        nonlocal now
        now = draw.choice(places)  # also back to one that is going just then
        keeper.stands("", "task", now.adapter)

    async def ask() -> None:
        place = now
        await keeper.ensure(place)
        for _ in range(draw.randrange(6)):  # the prompt is rendered; the adapter may go meanwhile
            await asyncio.sleep(0)
        async with keeper.hold(place):
            for _ in range(draw.randrange(12)):
                assert place.adapter in backend.known
                await asyncio.sleep(0)
        answered.append(place.adapter)

    async def all_of_it() -> None:
        keeper.stands("", "task", now.adapter)
        running = []
        for _ in range(300):
            running.append(asyncio.create_task(ask()))
            if draw.random() < 0.2:
                switch()
            await asyncio.sleep(0)
        await asyncio.gather(*running)
        await settled(lambda: backend.known <= {now.adapter})

    asyncio.run(all_of_it())
    assert len(answered) == 300
    assert set(answered) == {"v0", "v1", "v2"}
    assert backend.added > 3  # some went and came back
    assert not keeper._held
    assert not keeper._going


def test_an_adapter_of_two_names_goes_with_the_second(tmp_path: Path) -> None:
    backend = Slow(1)
    keeper = made(backend)

    async def both() -> None:
        keeper.stands("", "task", "v1")
        keeper.stands("a", "mine", "v1")
        async with keeper.hold(Place("v1", tmp_path)):
            pass
        keeper.stands("", "task", None)
        for _ in range(20):
            await asyncio.sleep(0)
        assert backend.known == {"v1"}
        async with keeper.hold(Place("v1", tmp_path)):
            keeper.stands("a", "mine", None)
            for _ in range(20):
                await asyncio.sleep(0)
            assert backend.known == {"v1"}
        await settled(lambda: not backend.known)

    asyncio.run(both())


def test_what_cannot_be_known_is_not_held(tmp_path: Path) -> None:
    keeper = made(Slow(1))

    async def gone() -> None:
        with pytest.raises(GoneError):
            async with keeper.hold(Place("v1", tmp_path / "none")):
                raise AssertionError("it was held")
        async with keeper.hold(Place(None)), keeper.hold(Place("fixed")):
            pass  # always there

    asyncio.run(gone())
    assert not keeper._held
