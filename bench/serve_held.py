"""What `serve_load.py` kills, and how it holds the server to what it confirmed, by the tests' helpers."""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from tiny_projects import write_tiny_model  # noqa: E402

from helpers.chaos import Killer, check_jobs, check_store, steps_on_disk, tracebacks  # noqa: E402
from helpers.journal import Client, Journal, check_files, losses, rows  # noqa: E402
from helpers.postgres import PASSWORD, local_postgres  # noqa: E402
from helpers.postgres import Server as Postgres  # noqa: E402
from helpers.served import Served, served  # noqa: E402
from serve_traffic import ENDED  # noqa: E402

__all__ = [
    "JOB", "PASSWORD", "Client", "Held", "Journal", "Killer", "Postgres", "Served", "check_files",
    "check_jobs", "check_store", "hold", "in_peace", "kill", "local_postgres", "rows", "served",
    "steps_on_disk", "tracebacks", "write_tiny_model",
]  # fmt: skip
HYPER = {"n_epochs": 4, "batch_size": 20, "learning_rate_multiplier": 25.0}
JOB: dict[str, Any] = {
    "method": {"type": "supervised", "supervised": {"hyperparameters": HYPER}},
    "seed": 5,
    "tanzim": {"train": {"save_steps": 3, "method.rank": 4}},
}


@dataclass
class Held:
    """The clients that hold a server to what it confirmed while it is killed.

    Args:
        journal: of all of them.
        people: the first of them trains.
        expected: steps and losses of a job that was left in peace.
        alike: jobs that must have the same.

    """

    journal: Journal
    people: list[Client]
    expected: list[tuple[int, float]] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)


async def in_peace(held: Held, model: str) -> str:
    """Run one job before anything is killed; return the file that it learnt from."""
    trainer = held.people[0]
    file = await trainer.upload(rows(120, 5))
    job = file and await trainer.create(model, file, JOB)
    if not file or not job:
        raise SystemExit(f"no job could be started: {held.journal.faults}")
    await check_jobs(trainer, (), [])
    held.expected = losses(await trainer.told(job))
    return file


async def hold(held: Held, model: str, file: str, stop: asyncio.Event) -> None:
    """Have a job like the first one at any time, and files that come and go."""

    async def at_work(client: Client) -> None:
        while not stop.is_set():
            await client.something()
            await asyncio.sleep(client.draw.uniform(0, 1))

    async def training() -> None:
        trainer = held.people[0]
        while not stop.is_set():
            if not held.alike or (await trainer.job(held.alike[-1]))["status"] in ENDED:
                job = await trainer.create(model, file, JOB)
                held.alike += [job] if job else []
            await asyncio.sleep(1)

    await asyncio.gather(training(), *(at_work(one) for one in held.people[1:]))


async def kill(
    killer: Killer, kinds: tuple[str, ...], every: float, stop: asyncio.Event, draw: random.Random
) -> None:
    """Kill something every so many seconds, drawn by chance."""
    while True:
        try:
            await asyncio.wait_for(stop.wait(), draw.uniform(0.3, 1.7) * every)
        except TimeoutError:
            await killer.kill(draw.choice(kinds))
        else:
            return
