"""Following the adapter repository: read little, fetched once, and nobody waits for what is away."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
import s3fs
from transformers import LlamaForCausalLM

from helpers import s3
from helpers.adapters import HASH, save_changed
from tanzim.adapters.repository import Repository
from tanzim.adapters.repository_state import Entry, Facts, State
from tanzim.core.errors import RunError
from tanzim.serve import shelf as shelf_module
from tanzim.serve.shelf import Shelf


class Watched(Repository):
    """Counts what is asked of a repository, and can be made to wait or to fail."""

    def __init__(self, url: str | Path) -> None:
        super().__init__(url)
        self.whole = self.advanced = self.fetched = 0
        self.open = threading.Event()
        self.open.set()
        self.away = False

    def _pass(self) -> None:
        assert self.open.wait(60)
        if self.away:
            raise RunError("the network is down")

    def state(self) -> State:
        self._pass()
        self.whole += 1
        return super().state()

    def advance(self, state: State) -> State:
        self._pass()
        self.advanced += 1
        return super().advance(state)

    def folder(self, entry: Entry) -> Path:
        self._pass()
        self.fetched += 1
        return super().folder(entry)


@pytest.fixture
def made(tiny_model: LlamaForCausalLM, tmp_path: Path) -> Path:
    return save_changed(tiny_model, tmp_path / "made", 1, type="lora", rank=2)


@pytest.fixture
def repository(tmp_path: Path, made: Path) -> Watched:
    kept = Watched(tmp_path / "repository")
    kept.add(made, Facts("one", "task"))
    kept.promote("one@1")
    kept.whole = 0
    return kept


async def found(shelf: Shelf, name: str, *, now: bool = False) -> str | None:
    entry = await shelf.find(name, now=now)
    return None if entry is None else entry.ref


def test_what_happened_is_seen_and_the_log_is_read_once(
    repository: Watched, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow(shelf: Shelf) -> None:
        assert await asyncio.gather(*(found(shelf, "task") for _ in range(50))) == ["one@1"] * 50
        assert (repository.whole, repository.advanced) == (1, 0)
        Repository(repository.url).add(made, Facts("one", "task", text="another"))
        assert await found(shelf, "one@2") == "one@2"  # not known yet: it looks at once
        assert repository.advanced == 1
        Repository(repository.url).promote("one@2")
        assert await found(shelf, "task", now=True) == "one@2"
        Repository(repository.url).roll_back("task")
        monkeypatch.setattr(shelf_module, "_FRESH", 0.0)
        assert await found(shelf, "task") == "one@1"
        assert [name for name, _ in await shelf.models()] == ["task", "one@1", "one@2"]
        Repository(repository.url).delete("one@2")
        assert await found(shelf, "one@2") is None
        assert repository.whole == 1

    shelf = Shelf(repository, HASH)
    asyncio.run(follow(shelf))
    shelf.close()
    other = Shelf(repository, "f" * 64)
    assert asyncio.run(found(other, "task")) is None
    assert asyncio.run(other.models()) == []
    other.close()


def test_files_from_s3_are_fetched_once_for_all_who_wait(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.serving() as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1", "TANZIM_CACHE": str(tmp_path / "cache"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket="bucket")
        repository = Watched("s3://bucket/adapters")
        repository.add(made, Facts("one", "task"))
        repository.promote("one@1")

        async def fetch(shelf: Shelf) -> None:
            entry = await shelf.find("task")
            assert entry is not None
            repository.open.clear()
            waiting = [asyncio.create_task(shelf.folder(entry)) for _ in range(20)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()  # one who leaves takes nothing from the others
            begun = time.monotonic()
            assert await found(shelf, "one@1") == "one@1"  # nor does anybody else wait
            assert time.monotonic() - begun < 30
            repository.open.set()
            folders = {str(folder) for folder in await asyncio.gather(*waiting[1:])}
            assert repository.fetched == 1
            (folder,) = folders
            assert str(tmp_path) in folder
            for file in made.iterdir():
                assert (Path(folder) / file.name).read_bytes() == file.read_bytes()
            shutil.rmtree(folder)
            assert (await shelf.folder(entry)).is_dir()  # what was cleared away is fetched again
            assert repository.fetched == 2

        shelf = Shelf(repository, HASH)
        asyncio.run(fetch(shelf))
        shelf.close()


def test_what_was_known_stands_while_it_is_away(
    repository: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shelf_module, "_FRESH", 0.0)
    monkeypatch.setattr(shelf_module, "_PATIENCE", 0.05)

    async def away(shelf: Shelf) -> None:
        repository.away = True
        with pytest.raises(RunError, match="network"):
            await shelf.find("task")
        repository.away = False
        assert await found(shelf, "task") == "one@1"
        repository.away = True
        assert await found(shelf, "task") == "one@1"
        assert "the network is down; what was known stands" in caplog.text
        repository.away = False
        repository.open.clear()  # it hangs
        assert await found(shelf, "task") == "one@1"
        assert await found(shelf, "never") is None
        repository.open.set()
        await until(lambda: shelf._looking is None)
        assert await found(shelf, "task") == "one@1"

    async def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    shelf = Shelf(repository, HASH)
    asyncio.run(away(shelf))
    shelf.close()
