"""One hour's worth of mixed traffic in ten minutes, against a real `tanzim serve`, with jobs running.

    python bench/serve_load.py [--minutes 10] [--requests 3600] [--model tiny|default] [--postgres] [--kill]

Four projects with keys of every role ask for chat, completions, responses and embeddings, whole and
streamed, of the base, two adapters and the models of their jobs; upload files whole and in parts, read and
delete them; load and unload adapters; start, follow, cancel, pause and resume fine-tuning jobs; hang up in
the middle; and make mistakes. Requests come as in a day: in a morning, an afternoon, and bursts.
``--requests`` is the hour's worth, of which shorter runs take their share. ``tiny``: random weights, two
layers; ``default``: the embedded 135M.

Every request is accounted for: answered rightly, refused as it must be, or given up by its client on purpose;
any other is lost, and the run fails. Greedy answers must equal the first one to the same question, whole or
streamed, from whichever route. ``--kill`` kills the server, a job's process, and (with ``--postgres``)
PostgreSQL with SIGKILL at moments drawn by ``--seed``, while more clients write down what was confirmed
(tests/helpers/journal.py) and hold the server to it; requests that find nobody then count as interrupted.

Memory, file descriptors and threads of the server are sampled each second. After three tenths of the time as
warm-up the rest is divided into ten windows. ``mb_per_minute`` is the slope of their medians (Theil and Sen)
between the ends of its 90 % interval; the run fails if it is above zero for sure and comes to more than 5 %
of the memory. (Each burst larger than those before leaves kernels for its shapes, and heaps of its threads.)

The last line is JSON. ``ratio.answered``: requests that ended as they must, over all but the interrupted;
``ratio.memory``: the last window's resident memory over the first one's; ``files`` and ``threads`` likewise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import tempfile
import time
import warnings
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scipy.stats import theilslopes

from serve_held import (
    JOB,
    PASSWORD,
    Client,
    Held,
    Journal,
    Killer,
    Postgres,
    Served,
    check_files,
    check_jobs,
    check_store,
    hold,
    in_peace,
    kill,
    local_postgres,
    rows,
    served,
    steps_on_disk,
    tracebacks,
    write_tiny_model,
)
from serve_traffic import ENDED, Ledger, Team, moments
from tanzim.adapters.attach import attach
from tanzim.adapters.config import LoraConfig
from tanzim.models.config import ModelConfig
from tanzim.models.load import load_model
from tanzim.models.resolve import resolve
from tanzim.serve.access.roles import RIGHTS
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import Store, open_store

PROJECTS, ADAPTERS, CLIENTS = 4, 3, 48
WINDOWS, WARM, MOST, WARM_ROUNDS = 10, 0.3, 0.05, 5


@dataclass
class Samples:
    """What was seen of the server's process, each second.

    Args:
        at: seconds since the start of the load.
        memory: resident (MB).
        files: open file descriptors.
        threads: of the process.

    """

    at: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)

    def take(self, pid: int, start: float) -> None:
        """Look at a process now."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            files = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:  # it was just killed
            return
        known = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if "VmRSS" in known:
            self.at.append(time.monotonic() - start)
            self.memory.append(int(known["VmRSS"].split()[0]) / 1024)
            self.files.append(files)
            self.threads.append(int(known["Threads"]))

    def windows(self, values: list[float]) -> list[float]:
        """Return the medians of the windows after the warm-up."""
        end = self.at[-1]
        wide = end * (1 - WARM) / WINDOWS
        parts: list[list[float]] = [[] for _ in range(WINDOWS)]
        for at, value in zip(self.at, values, strict=True):
            if at >= end * WARM:
                parts[min(WINDOWS - 1, int((at - end * WARM) / wide))].append(value)
        return [statistics.median(part) for part in parts if part]


async def train(team: Team, stop: asyncio.Event) -> None:
    """Have one job after another: most succeed, some are cancelled, paused, or have bad files."""
    file = await team.upload(rows(120, 5))
    bad = await team.upload(b'{"messages": []}\n{half\n')
    for number in range(10**6):
        if stop.is_set() or file is None or bad is None:
            return
        way = ("succeeded", "cancelled", "succeeded", "failed", "paused")[number % 5]
        asked = {"model": team.models[0], "training_file": bad if way == "failed" else file, **JOB}
        made = await team.send("job", "POST", "/v1/fine_tuning/jobs", json=asked)
        if made is None:
            await asyncio.sleep(1)
            continue
        place = f"/v1/fine_tuning/jobs/{made.json()['id']}"
        if way in ("cancelled", "paused"):
            await asyncio.sleep(team.draw.uniform(0, 15))
            await _signalled(team, place, way)
        job = await follow(team, place)
        ends = {"paused": ("succeeded",), "cancelled": ("cancelled", "succeeded")}.get(way, (way,))
        if job["status"] not in ends:
            team.ledger.lost.append(f"job: ended as {job['status']}, not {way}: {job['error']}")
        if job["status"] == "succeeded":
            name = job["fine_tuned_model"]
            team.models[ADAPTERS:] = [*team.models[ADAPTERS:], name][-2:]
            if number % 3 == 0:
                team.models.remove(name)
                await team.send("model deletion", "DELETE", f"/v1/models/{name}")


async def _signalled(team: Team, place: str, way: str) -> None:
    """Cancel a job, or pause and resume it, unless it has ended."""
    for word in {"cancelled": ("cancel",), "paused": ("pause", "resume")}[way]:
        found = await team.send("job read", "GET", place)
        if found is not None and found.json()["status"] not in ENDED:
            team.ledger.sent["job change"] += 1
            answer = await team.clients["trainer"].post(f"{place}/{word}")
            ended = answer.status_code == 400 and "cannot be" in answer.text
            right = team.ledger.refused if ended else team.ledger.right
            right["job change"] += 1
            if answer.status_code != 200 and not ended:
                team.wrong("job change", answer.text)
            await asyncio.sleep(3)


async def follow(team: Team, place: str) -> dict[str, Any]:
    """Follow a job's events to its end; return it."""
    after: dict[str, str] = {}
    while True:
        query = {"follow": "true", "limit": "100", **after}
        page = await team.send("job events", "GET", f"{place}/events", role="viewer", params=query)
        if page is None:
            await asyncio.sleep(0.5)
            continue
        told = page.json()
        after = {"after": told["last_id"]} if told["data"] else after
        if told["has_more"]:
            continue
        found = await team.send("job read", "GET", place, role="viewer")
        if found is not None and found.json()["finished_at"] is not None:
            job: dict[str, Any] = found.json()
            return job
        await asyncio.sleep(0.5)


async def drive(teams: list[Team], count: int, seconds: float, draw: random.Random) -> float:
    """Send the traffic; return by how much the last request was later than planned (s)."""
    start, room, late = time.monotonic(), asyncio.Semaphore(CLIENTS), 0.0
    under_way: set[asyncio.Task[None]] = set()
    for at in moments(count, seconds, draw):
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))
        await room.acquire()
        late = time.monotonic() - start - at
        task = asyncio.create_task(draw.choice(teams).something())
        under_way.add(task)
        task.add_done_callback(lambda done: (under_way.discard(done), room.release(), done.result()))
    await asyncio.gather(*under_way)
    return late


async def watch(server: Served, samples: Samples, stop: asyncio.Event) -> None:
    start = time.monotonic()
    while not stop.is_set():
        samples.take(server.pid, start)
        await asyncio.sleep(1)


async def at_rest(team: Team, ledger: Ledger) -> None:
    """See that nothing of all those requests is left in the server: nobody waits, and no cache is held."""
    left = {"requests_running": 1.0}
    for _ in range(100):
        if not any(left.values()):
            return
        await asyncio.sleep(0.3)
        text = (await team.clients["viewer"].get("/metrics")).text
        found = re.findall(
            r'^tanzim_(requests_running|requests_waiting|cache_tokens){of="(\w+)"} (\S+)', text, re.M
        )
        left = {f"{name} {of}": float(value) for name, of, value in found if of != "room"}
    ledger.lost.append(f"the server still holds {left}")


async def load(
    server: Served, teams: list[Team], ledger: Ledger, held: Held | None, killer: Killer | None,
    options: argparse.Namespace,
) -> tuple[Samples, float, float]:  # fmt: skip
    """Drive all of it; return what was sampled, the longest lag, and the seconds it took."""
    stop, draw, samples = asyncio.Event(), random.Random(options.seed), Samples()
    for team in teams:  # the compiled loops, and the first adapters
        for model in team.models:
            await team.streamed("warm-up", "/v1/chat/completions", team.chat_body(model=model))
    for _ in range(WARM_ROUNDS):  # as many at once as there may ever be
        await asyncio.gather(*(draw.choice(teams).something() for _ in range(CLIENTS)))
    file = "" if held is None else await in_peace(held, teams[0].models[0])
    start = time.monotonic()
    beside = [asyncio.create_task(watch(server, samples, stop))]
    beside += [asyncio.create_task(train(team, stop)) for team in teams[:2]]
    if held is not None and killer is not None:
        kinds = ("server", "worker", *(("postgres", "backend") if options.postgres else ()))
        ledger.outages = killer.outages
        beside.append(asyncio.create_task(hold(held, teams[0].models[0], file, stop)))
        killing = kill(killer, kinds, options.every, stop, random.Random(options.seed))
        beside.append(asyncio.create_task(killing))
    count = round(options.requests * options.minutes / 10)
    late = await drive(teams, count, options.minutes * 60, draw)
    stop.set()
    await asyncio.gather(*beside)
    if held is not None:
        await check_jobs(held.people[0], held.alike, held.expected)
        for one in held.people:
            await check_files(one)
            await one.close()
    await at_rest(teams[0], ledger)
    for team in teams:
        await team.close()
    return samples, late, time.monotonic() - start


def make_model(options: argparse.Namespace, folder: Path) -> tuple[str, list[Path]]:
    """Return the base's name, and folders of random adapters for it."""
    name = ModelConfig().name if options.model == "default" else str(write_tiny_model(folder / "tiny"))
    base = resolve(ModelConfig(name=name))
    model = load_model(base, dtype=torch.float32, device=torch.device("cpu")).eval()
    method = attach(model, LoraConfig(rank=8), seed=0, base_hash=base.hash, base_name=base.name)
    paths = [folder / "adapters" / f"a{number}" for number in range(ADAPTERS)]
    for number, path in enumerate(paths):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for value in method.parameters.values():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.05)
        method.save(path)
    return base.name, paths


def make_teams(store: Store, url: str, ledger: Ledger, base: str, paths: list[Path]) -> list[Team]:
    """Make the projects, with a key of each role."""
    models = [base, *(path.name for path in paths[:-1])]
    made = []
    for number in range(PROJECTS):
        keys = {role: store.keys.add(role, role=role, project=f"p{number}") for role in RIGHTS}
        made.append(Team(url, keys | {"nobody": "tz-wrong"}, ledger, models, number, str(paths[-1])))
    for one, other in zip(made, [*made[1:], made[0]], strict=True):
        one.foreign, other.foreign = other.foreign, one.foreign
    return made


def growth(samples: Samples) -> dict[str, Any]:
    """Return how memory, files and threads went, and whether memory grows for sure."""
    memory = samples.windows(samples.memory)
    minutes = samples.at[-1] / 60
    wide = minutes * (1 - WARM) / WINDOWS
    slope, _, low, high = theilslopes(memory, [wide * n for n in range(len(memory))], 0.9)
    rise = slope * wide * (len(memory) - 1)
    return {
        "memory_mb": [round(value, 1) for value in memory],
        "mb_per_minute": [round(float(v), 3) for v in (low, slope, high)],
        "grows": bool(low > 0 and rise > MOST * memory[0]),
        "files": [round(v) for v in samples.windows(samples.files)],
        "threads": [round(v) for v in samples.windows(samples.threads)],
    }


def report(
    ledger: Ledger, samples: Samples, journal: Journal, killer: Killer | None, found: dict[str, Any]
) -> bool:
    """Print the account and the JSON line; tell whether all was well."""
    ended = (ledger.right, ledger.refused, ledger.hung_up, ledger.interrupted)
    print("\n| request | sent | right | refused | hung up | interrupted |\n" + "|---" * 6 + "|")
    for kind in sorted(ledger.sent):
        print(f"| {kind} | {ledger.sent[kind]} | " + " | ".join(str(one[kind]) for one in ended) + " |")
    sent, done = ledger.sent.total(), sum(one.total() for one in ended)
    lost = ledger.lost or [f"{sent - done} requests without an end"] * (sent != done)
    faults = journal.faults
    for line in [*lost[:20], *faults[:20]]:
        print("LOST", line)
    interrupted = ledger.interrupted.total()
    seconds = sorted(ledger.seconds)
    grown = growth(samples)
    memory = grown["memory_mb"]
    ratio = {
        "answered": (done - interrupted) / (sent - interrupted),
        "memory": memory[-1] / memory[0],
        "files": grown["files"][-1] / grown["files"][0],
        "threads": grown["threads"][-1] / grown["threads"][0],
    }
    result = {
        "ratio": ratio, "requests": sent, "lost": len(lost), "compared": ledger.repeated,
        "interrupted": interrupted, "faults": len(faults), "median_s": statistics.median(seconds),
        "p99_s": seconds[int(0.99 * len(seconds))], **grown, **found,
    }  # fmt: skip
    if killer is not None:
        result |= {"kills": dict(killer.done), "confirmed": dict(journal.counts)}
    well = not lost and not faults and not found["tracebacks"] and (killer is not None or not grown["grows"])
    print(json.dumps(result))
    return well


def run(options: argparse.Namespace, folder: Path, postgres: Postgres | None) -> bool:
    """Start the server, load it, and look at what it leaves."""
    base, paths = make_model(options, folder)
    settings: dict[str, object] = {
        "require_key": "true", "max_batch": 32, "adapter_folders": json.dumps([str(folder)]),
    }  # fmt: skip
    database = None if postgres is None else postgres.url()
    if database is not None:
        settings["database"] = database
    config = ServeConfig(folder=str(folder / "server"), database=database)
    ledger, journal, held, killer = Ledger(), Journal(), None, None
    models = [str(path) for path in paths[:-1]]
    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    with served(folder, models, threads, **settings) as server:
        with closing(open_store(config)) as store:
            teams = make_teams(store, server.url, ledger, base, paths)
            if options.kill:
                keys = [store.keys.add("h", role="trainer", project=f"h{n}") for n in range(3)]
                held = Held(journal, [Client(server.url, key, journal, n) for n, key in enumerate(keys)])
                killer = Killer(server, postgres, steps_on_disk(server), random.Random(options.seed))
        samples, late, seconds = asyncio.run(load(server, teams, ledger, held, killer, options))
        server.stop()
        with closing(open_store(config)) as store:
            check_store(store, journal)
        found = {
            "seconds": round(seconds), "latest_start_s": round(late, 1), "jobs": jobs_of(config),
            "database_mb": round(sum(size(p) for p in (folder / "server").glob("*.sqlite*")) / 1e6, 1),
            "tracebacks": tracebacks(server.log),
        }  # fmt: skip
        return report(ledger, samples, journal, killer, found)


def jobs_of(config: ServeConfig) -> dict[str, float]:
    """Return how many jobs ended in which way."""
    with closing(open_store(config)) as store:
        return store.jobs.counts()


def size(path: Path) -> int:
    return path.stat().st_size


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--requests", type=int, default=3600, help="an hour's worth, for ten minutes")
    parser.add_argument("--model", choices=("tiny", "default"), default="tiny")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--every", type=float, default=40.0, help="seconds between kills, about")
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder that stays, with the server's log")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        postgres = None
        if options.postgres:
            os.environ["PGPASSWORD"] = PASSWORD
            postgres = stack.enter_context(local_postgres())
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        well = run(options, place.resolve(), postgres)
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
