"""kill -9 of the server, of jobs and of PostgreSQL while clients work: nothing confirmed is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from helpers.chaos import Killer, all_of, check_jobs, check_store, key_id, steps_on_disk, tracebacks
from helpers.journal import Client, Journal, check_files, losses, rows
from helpers.postgres import PASSWORD, Server, local_postgres
from helpers.served import Served, served
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import Store, open_store

pytestmark = pytest.mark.slow

HYPER = {"n_epochs": 8, "batch_size": 20, "learning_rate_multiplier": 25.0}
JOB = {
    "method": {"type": "supervised", "supervised": {"hyperparameters": HYPER}},
    "seed": 5,
    "tanzim": {"train": {"save_steps": 3}},
}
SEED = 11
FEW = 10  # bad keys, of which an address may not try many


@pytest.fixture(params=["sqlite", "postgresql"])
def postgres(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server | None]:
    if request.param == "sqlite":
        yield None
        return
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with local_postgres() as server:
        yield server


def test_nothing_confirmed_is_lost(tiny_model: Path, tmp_path: Path, postgres: Server | None) -> None:
    settings: dict[str, object] = {"require_key": "true", "max_jobs": 2}
    if postgres is not None:
        settings["database"] = postgres.url()
    database = None if postgres is None else postgres.url()
    config = ServeConfig(folder=str(tmp_path / "server"), database=database)
    journal = Journal()
    with served(tmp_path, [str(tiny_model)], **settings) as server:
        with closing(open_store(config)) as store:
            asyncio.run(work(server, postgres, store, journal))
        server.stop()
        with closing(open_store(config)) as store:
            check_store(store, journal)
        assert tracebacks(server.log) == []
    assert journal.faults == []
    assert journal.counts["confirmed"] > 100
    assert journal.counts["no answer"] > 0
    assert (journal.counts["503"] > 0) == (postgres is not None)


async def work(server: Served, postgres: Server | None, store: Store, journal: Journal) -> None:
    """Let clients work while parts of the server are killed; then hold it to what it confirmed."""
    draw = random.Random(SEED)
    people = [
        Client(server.url, store.keys.add("c", role="trainer", project=project), journal, number)
        for number, project in enumerate(("one", "one", "two", "trains"))
    ]
    trainer = people[-1]
    file = await trainer.upload(rows(120, 5))
    assert file is not None
    model = server.models[0]
    quiet = await trainer.create(model, file, JOB)
    assert quiet is not None
    await check_jobs(trainer, (), [])
    expected = losses(await trainer.told(quiet))
    assert len(expected) > 20
    said = await trainer.say((await trainer.job(quiet))["fine_tuned_model"], "77: Which colour has apple?")
    assert said == "red"

    stop = asyncio.Event()
    keys: dict[str, bool | None] = {}
    busy = [asyncio.create_task(at_work(one, stop)) for one in people[:-1]]
    busy.append(asyncio.create_task(change_keys(store, keys, stop)))
    first = await trainer.create(model, file, JOB)
    cancelled = await trainer.create(model, file, JOB)
    alike = [] if first is None else [first]
    busy.append(asyncio.create_task(keep_training(trainer, model, file, alike, stop)))
    kinds = {"server": 2, "worker": 2}
    if postgres is not None:
        kinds = {"server": 1, "worker": 1, "postgres": 2, "backend": 1}
    killer = Killer(server, postgres, steps_on_disk(server), draw)
    for number, kind in enumerate(all_of(kinds, draw)):
        await asyncio.sleep(draw.uniform(0.5, 4))
        await killer.kill(kind)
        if number == 1 and cancelled is not None:
            await trainer.cancel(cancelled)
        if number == 2:  # it may have ended
            trainer.expect(await trainer.until("POST", f"/v1/fine_tuning/jobs/{alike[-1]}/pause"), 200, 400)
            trainer.expect(await trainer.until("POST", f"/v1/fine_tuning/jobs/{alike[-1]}/resume"), 200, 400)
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*busy)

    await check_jobs(trainer, alike, expected)
    for id_ in alike:
        name = (await trainer.job(id_))["fine_tuned_model"]
        assert await trainer.say(name, "77: Which colour has apple?") == said
    for one in people:
        await check_files(one)
    await check_keys(server, keys, journal)
    for one in people:
        await one.close()


async def at_work(client: Client, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await client.something()
        await asyncio.sleep(client.draw.uniform(0, 0.1))


async def keep_training(
    trainer: Client, model: str, file: str, alike: list[str], stop: asyncio.Event
) -> None:
    """See to it that a job runs at any time."""
    while not stop.is_set():
        if not alike or (await trainer.job(alike[-1]))["status"] == "succeeded":
            job = await trainer.create(model, file, JOB)
            alike += [] if job is None else [job]
        await asyncio.sleep(0.5)


async def change_keys(store: Store, keys: dict[str, bool | None], stop: asyncio.Event) -> None:
    """Add keys and revoke every second of them, as ``tanzim keys`` does; None: it is not known whether."""
    while not stop.is_set():
        try:
            key = await asyncio.to_thread(store.keys.add, "k", role="viewer", project="one")
            keys[key] = True
            if len(keys) % 2:
                keys[key] = None
                await asyncio.to_thread(store.keys.revoke, key_id(key))
                keys[key] = False
        except SQLAlchemyError:  # PostgreSQL is away
            pass
        await asyncio.sleep(0.2)


async def check_keys(server: Served, keys: dict[str, bool | None], journal: Journal) -> None:
    assert len(keys) > 5
    good, revoked = ([key for key, state in keys.items() if state is wanted] for wanted in (True, False))
    for key in (*good, *revoked[-FEW:]):
        client = Client(server.url, key, journal, 0)
        client.expect(await client.until("GET", "/v1/models"), 200 if keys[key] else 401)
        await client.close()
