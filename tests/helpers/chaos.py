"""Kills parts of a server at moments drawn by chance, and looks whether all is as was confirmed."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import select

from helpers.journal import Client, Journal, losses
from helpers.postgres import Server as Postgres
from helpers.served import Served
from tanzim.serve.store.store import Store
from tanzim.serve.store.tables import audit, events, files, parts


class Killer:
    """Kills with SIGKILL.

    Args:
        server: is started again after a kill.
        postgres: likewise; None where the server has SQLite.
        jobs: steps that were told of each job now; only what gets further is killed again, for a job that
            dies three times in one place is given up.
        draw: the moments.
        say: told each of them.

    """

    def __init__(
        self,
        server: Served,
        postgres: Postgres | None,
        jobs: Callable[[str], int],
        draw: random.Random,
        say: Callable[[str], object] = print,
    ) -> None:
        self._server, self._postgres, self._jobs = server, postgres, jobs
        self._draw, self._say = draw, say
        self._start = time.monotonic()
        self._reached: dict[str, int] = {}
        self.outages: list[tuple[float, float]] = []
        self.done: Counter[str] = Counter()

    async def kill(self, kind: str) -> None:
        """Kill the server, a job's process (worker), a backend of PostgreSQL, or all of it (postgres)."""
        began = time.monotonic()
        self._say(f"{began - self._start:6.1f} s: kill -9 of {kind}")
        if kind == "worker":  # of which no request may notice anything
            await self._kill_worker()
        else:
            self.outages.append((began, math.inf))
            await getattr(self, f"_kill_{kind}")()
            self.outages[-1] = began, time.monotonic()
        self.done[kind] += 1

    async def _kill_server(self) -> None:
        self._server.kill()
        await asyncio.sleep(self._draw.uniform(0, 2))
        await asyncio.to_thread(self._server.start)

    async def _kill_worker(self) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for job, pid in self._server.jobs().items():
                steps = self._jobs(job)
                if steps >= self._reached.get(job, 0) + 4:
                    await asyncio.sleep(self._draw.uniform(0, 1))
                    self._reached[job] = self._jobs(job)
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    return
            await asyncio.sleep(0.1)
        raise AssertionError("no job's process gets so far that it can be killed")

    async def _kill_backend(self) -> None:
        assert self._postgres is not None
        found = await asyncio.to_thread(self._postgres.backends)
        if found:
            os.kill(self._draw.choice(found), signal.SIGKILL)
        await asyncio.sleep(1)

    async def _kill_postgres(self) -> None:
        assert self._postgres is not None
        self._postgres.kill()
        await asyncio.sleep(self._draw.uniform(0.5, 3))
        await asyncio.to_thread(self._postgres.start)


def steps_on_disk(server: Served) -> Callable[[str], int]:
    """Return a function from a job to the events that its process has written."""

    def count(job: str) -> int:
        path = server.folder / "server" / "jobs" / job / "events.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    return count


async def check_jobs(client: Client, alike: Iterable[str], expected: list[tuple[int, float]]) -> None:
    """Hold the server to what it confirmed of the jobs of this client, once all have ended.

    Args:
        client: whose they are.
        alike: jobs with the same file, seed and settings as one that was left in peace.
        expected: its steps and losses.

    """
    journal = client.journal
    for id_, (key, ends) in journal.jobs.items():
        if key != client.key:
            continue
        while (job := await client.job(id_))["status"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.3)
        while job["finished_at"] is None:  # a job that was cancelled may still be saving
            await asyncio.sleep(0.3)
            job = await client.job(id_)
        if job["status"] != ends:
            journal.faults.append(f"{id_} ended as {job['status']}, not {ends}: {job['error']}")
        told = await client.told(id_)
        steps = [step for step, _ in losses(told)]
        if steps != list(range(1, len(steps) + 1)):
            journal.faults.append(f"{id_}: steps were told as {steps}")
        if id_ in alike and losses(told) != expected:
            journal.faults.append(f"{id_}: other losses than without kills")
        ended = [one for one in told if one["message"] == "The job has successfully completed"]
        if len(ended) != (job["status"] == "succeeded"):
            journal.faults.append(f"{id_}: {len(ended)} ends were told")
        if job["status"] == "succeeded":
            client.expect(await client.until("GET", f"/v1/models/{job['fine_tuned_model']}"), 200)


def check_store(store: Store, journal: Journal) -> None:
    """Compare what lies in database and folder with one another, and with what was confirmed.

    Args:
        store: of the server, which has ended.
        journal: what it confirmed.

    """
    with store.database.begin() as connection:
        trail = connection.execute(select(audit.c.key, audit.c.method, audit.c.path, audit.c.status))
        written = Counter(tuple(row) for row in trail)
        known = {row["id"]: row for row in connection.execute(select(files)).mappings()}
        kept = set(connection.execute(select(parts.c.id)).scalars())
        twice = [id_ for id_, count in Counter(connection.execute(select(events.c.id)).scalars()).items()
                 if count > 1]  # fmt: skip
    for change, count in journal.changes.items():
        if written[change] < count:
            journal.faults.append(
                f"{change} was confirmed {count} times, and is {written[change]} in the trail"
            )
    for id_, row in known.items():
        try:
            with store.files.open(id_) as stream:
                content = stream.read()
        except FileNotFoundError:
            journal.faults.append(f"{id_} has a row and no bytes")
            continue
        if (len(content), hashlib.sha256(content).hexdigest()) != (row["bytes"], row["sha256"]):
            journal.faults.append(f"{id_} has other bytes than its row says")
    _age(store.root)
    store.tidy()
    _same(journal, "files", set(known), store.root / "files")
    _same(journal, "parts", kept, store.root / "parts")
    journal.faults += [f"{id_} is there twice" for id_ in twice]
    journal.faults += [f"{path.name} is left" for path in store.root.glob(".upload-*")]


def _age(root: Path) -> None:
    """Let all that was under way have begun two hours ago, so that it is swept away."""
    long_ago = time.time() - 7200
    for path in (*root.rglob("unsettled/*/*"), *root.glob(".upload-*")):
        os.utime(path, (long_ago, long_ago))


def _same(journal: Journal, kind: str, known: set[str], folder: Path) -> None:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    journal.faults += [f"{kind}: {name} lies there without a row" for name in there - known]


def tracebacks(log: Path) -> list[str]:
    """Return the last lines of the tracebacks in a server's log."""
    found: list[str] = []
    inside = False
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("Traceback"):
            inside = True
        elif inside and line and not line.startswith((" ", "+", "|")):
            found.append(line)
            inside = False
    return found


def key_id(key: str) -> str:
    """Return the public part of a key."""
    return key.split("-")[1]


def all_of(kinds: dict[str, int], draw: random.Random) -> list[str]:
    """Return each kind so often, in an order drawn by chance."""
    made: list[Any] = [kind for kind, count in kinds.items() for _ in range(count)]
    draw.shuffle(made)
    return made
