"""Ranks on this machine: torchrun starts them, their logs come by line, and what ended them is named.

ranks/
  rank-<n>.json, rank-<n>.stack    see `heartbeat`
  logs-<node>/…/<n>/std*.log       what each rank of a machine printed
  torchrun-<node>.log              what torchrun itself had to say
  outcome-<node>.json              how ranks ended that did not end well
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tanzim.core.errors import TanzimError, TrainError
from tanzim.core.files import read_json
from tanzim.core.records import Json
from tanzim.launch.blame import blame, hung
from tanzim.launch.config import LocalLaunch, TorchrunLaunch
from tanzim.launch.heartbeat import Beat, beats, dump_stacks, forget, silent
from tanzim.launch.tail import Tail

POLL_SECONDS = 0.1
SHUTDOWN_SECONDS = 10  # for the other ranks, after one has failed
LINE_WIDTH = "160"  # of what a rank prints


def run_ranks(
    module: Sequence[str],
    folder: Path,
    config: LocalLaunch | TorchrunLaunch,
    *,
    name: str,
    write: Callable[[str], None] = print,
) -> None:
    """Run ``python -m MODULE…`` as the ranks of this machine, until all have ended.

    Args:
        module: the module and its arguments; each rank finds its place by `place`.
        folder: the run's ``ranks/``, empty but for what an earlier job left.
        config: how many ranks, how they meet, and how long one may be silent.
        name: by which the machines of one job know each other: the run's name.
        write: takes each line that a rank prints, with the rank before it.

    Raises:
        TanzimError: a rank failed, was killed or hung; the message names it and its samples. It is of the
            kind that the rank raised, TrainError where the rank said nothing.

    """
    node = config.node_rank if isinstance(config, TorchrunLaunch) else 0
    ranks = range(node * config.nproc, (node + 1) * config.nproc)
    folder.mkdir(parents=True, exist_ok=True)
    forget(folder, ranks)
    logs, outcome = folder / f"logs-{node}", folder / f"outcome-{node}.json"
    shutil.rmtree(logs, ignore_errors=True)
    outcome.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tanzim.launch.agent", str(outcome)]
    command += [*torchrun_arguments(config, logs, name), "-m", *module]
    with (folder / f"torchrun-{node}.log").open("wb") as log:
        # In a session of its own: Ctrl-C in the terminal is passed on by us, once, to the ranks alone.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=_environment(config), start_new_session=True
        )
        watch = _Watch(folder, ranks, config.heartbeat_seconds)
        tail = Tail(write)
        with _signals_passed_on(process, watch):
            while process.poll() is None and watch.hung is None:
                time.sleep(POLL_SECONDS)
                tail.read(_logs(logs, ranks))
                watch.look()
        _end(process, watch)
        tail.read(_logs(logs, ranks))
    if watch.hung is not None:
        raise watch.hung
    if process.returncode:
        failures = read_json(outcome) if outcome.is_file() else []
        raise blame(watch.beats(), failures, logs)


def torchrun_arguments(config: LocalLaunch | TorchrunLaunch, logs: Path, name: str) -> list[str]:
    """Return what torchrun is called with; ranks of one machine meet on the loopback address."""
    common = {
        "nproc-per-node": config.nproc,
        "max-restarts": 0,
        "monitor-interval": POLL_SECONDS,
        "shutdown-timeout": SHUTDOWN_SECONDS,
        "signals-to-handle": "SIGHUP",
        "redirects": 3,
        "log-dir": logs,
        "rdzv-id": name,
    }
    meeting: Json
    if isinstance(config, TorchrunLaunch):
        host, _, port = config.master.partition(":")
        meeting = {
            "nnodes": config.nodes,
            "node-rank": config.node_rank,
            "master-addr": host,
            "master-port": port,
        }
    else:
        loopback = "127.0.0.1"
        meeting = {
            "nnodes": 1,
            "rdzv-backend": "c10d",
            "rdzv-endpoint": f"{loopback}:0",
            "local-addr": loopback,
        }
    return [f"--{key}={value}" for key, value in {**common, **meeting}.items()]


def _environment(config: LocalLaunch | TorchrunLaunch) -> dict[str, str]:
    """Return the ranks' environment: cores shared out, and on one machine no way out of it."""
    shared = str(max(1, (os.cpu_count() or 1) // config.nproc))
    given = {"OMP_NUM_THREADS": shared, "COLUMNS": LINE_WIDTH, "PYTHONUNBUFFERED": "1"}
    if isinstance(config, LocalLaunch):
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        given |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return given | os.environ


class _Watch:
    """Looks at the heartbeats of this machine's ranks."""

    def __init__(self, folder: Path, ranks: range, limit: float) -> None:
        self.folder, self.ranks, self.limit = folder, ranks, limit
        self.hung: TanzimError | None = None

    def beats(self) -> list[Beat]:
        host = socket.gethostname()
        return [beat for beat in beats(self.folder) if beat.rank in self.ranks and beat.host == host]

    def look(self) -> None:
        """If a rank has hung, note it, with everybody's stacks."""
        found = self.beats()
        guilty = silent(found, self.limit, time.monotonic())
        if guilty:
            stacks = dump_stacks(self.folder, found)
            self.hung = hung(guilty, stacks, time.monotonic())

    def kill(self, number: signal.Signals) -> bool:
        """Send a signal to every rank at work; return whether there was one."""
        living = [beat for beat in self.beats() if beat.phase in ("working", "waiting")]
        for beat in living:
            with suppress(ProcessLookupError):
                os.kill(beat.pid, number)
        return bool(living)


def _logs(folder: Path, ranks: range) -> dict[Path, int]:
    """Return the files that the ranks print to, by path: torchrun's <id>/attempt_0/<n>/std*.log."""
    return {path: ranks[int(path.parent.name)] for path in sorted(folder.glob("*/attempt_*/*/std*.log"))}


def _end(process: subprocess.Popen[bytes], watch: _Watch) -> None:
    """Leave no process behind: a rank that hung would not follow a polite request."""
    if process.poll() is None:
        watch.kill(signal.SIGKILL)
        process.send_signal(signal.SIGHUP)
    try:
        process.wait(2 * SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes], watch: _Watch) -> Iterator[None]:
    """Let the ranks finish their step on Ctrl-C or SIGTERM; a second one ends them at once."""
    before: dict[int, Any] = {}
    seen: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            watch.kill(signal.SIGKILL)
            process.send_signal(signal.SIGHUP)
        elif not watch.kill(signal.SIGTERM):
            process.send_signal(signal.SIGHUP)  # nobody is at a step yet

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
    if seen and process.returncode and not any(beat.phase == "failed" for beat in watch.beats()):
        raise TrainError(
            f"stopped by {signal.Signals(seen[-1]).name}",
            where=str(watch.folder),
            fix="run the same command again to go on from the last checkpoint",
        )
