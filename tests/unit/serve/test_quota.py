"""What a project may hold is not exceeded, however many take at the same moment; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from helpers.postgres import PASSWORD, local_postgres
from tanzim.serve.config import ServeConfig
from tanzim.serve.store import quota
from tanzim.serve.store.jobs import UNFINISHED
from tanzim.serve.store.quota import FullError
from tanzim.serve.store.store import Store, open_store

MANY = 8


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Store]]:
    """Two servers with one database."""
    if request.param == "sqlite":
        made = [open_store(ServeConfig(folder=str(tmp_path / "server"))) for _ in range(2)]
        yield made
    else:
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        with local_postgres() as server:
            database = server.url().replace("postgresql+psycopg", "postgresql")
            config = ServeConfig(folder=str(tmp_path / "server"), database=database)
            made = [open_store(config) for _ in range(2)]
            yield made
            for store in made:
                store.close()
        return
    for store in made:
        store.close()


def race(stores: list[Store], take: object) -> int:
    """Let many take at the same moment; return how many were let."""
    barrier = Barrier(MANY)

    def one(number: int) -> bool:
        barrier.wait()
        try:
            take(stores[number % len(stores)], number)  # type: ignore[operator]
        except FullError:
            return False
        return True

    with ThreadPoolExecutor(MANY) as pool:
        return sum(pool.map(one, range(MANY)))


def test_files_and_uploads_race_for_the_last_room(stores: list[Store], tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100)
    stores[0].files.add("other", "full", "fine-tune", path, 100)  # it counts for nobody else

    def take(store: Store, number: int) -> None:
        if number % 4 < 2:
            store.files.add("a", "f", "fine-tune", path, 350)
        else:
            store.uploads.add("a", "f", "fine-tune", 100, 350)

    assert race(stores, take) == 3
    with pytest.raises(FullError, match="would hold more"):
        stores[1].uploads.add("a", "f", "fine-tune", 51, 350)
    stores[1].uploads.add("a", "f", "fine-tune", 50, 350)
    # Nothing is left of those that were refused.
    listed = stores[0].files.list("a", purpose=None, after=None, limit=100, oldest_first=True).rows
    kept = {path_.name for path_ in (tmp_path / "server" / "files").iterdir()}
    assert kept >= {row["id"] for row in listed}
    assert len(kept) == len(listed) + 1


def test_files_parts_and_jobs_are_counted(
    stores: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    monkeypatch.setattr(quota, "FILES", 5)
    monkeypatch.setattr(quota, "JOBS", 3)
    assert race(stores, lambda store, _: store.files.add("a", "f", "fine-tune", path, 1 << 30)) == 5
    with pytest.raises(FullError, match="5 already"):
        stores[0].uploads.add("a", "f", "fine-tune", 1, 1 << 30)

    method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
    asked = {"model": "m", "training_file": "f", "seed": 1, "settings": {}, "method": method}
    assert race(stores, lambda store, _: store.jobs.add("a", asked)) == 3
    jobs = stores[0].jobs
    ended = jobs.list("a", after=None, limit=1).rows[0]["id"]
    assert jobs.list("a", after=None, limit=1).rows[0]["status"] in UNFINISHED
    jobs.change(ended, status="cancelled")
    assert race(stores, lambda store, _: store.jobs.add("a", asked)) == 1
    assert race(stores, lambda store, _: store.jobs.add("b", asked)) == 3
