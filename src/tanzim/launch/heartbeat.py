"""Heartbeats: each rank writes what it is about to do; who fell silent is found, and its stacks written.

ranks/
  rank-<n>.json    the rank's last `Beat`, replaced whole at every pass
  rank-<n>.stack   the stacks of its threads, once somebody has asked for them (SIGUSR1)

A rank that hangs keeps the others waiting in a collective operation; so those who wait say so, and the
silent one among those who do not is to blame.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from tanzim.core.errors import TanzimError
from tanzim.core.files import read_json
from tanzim.core.records import Json

# working: on a pass or a save; waiting: for other ranks. Only these two have a time limit, not the data,
# the loading and the proof at the end.
Phase = Literal["preparing", "working", "waiting", "finishing", "done", "failed"]
NAMED_SAMPLES = 8  # samples of a pass that a beat names
STACK_SECONDS = 5.0  # for the stacks to be written


@dataclass(frozen=True, slots=True)
class Beat:
    """What a rank was about to do when it last said so.

    Args:
        rank: whose it is.
        pid: its process, on the machine ``host``.
        phase: what kind of thing it does.
        step: the optimiser step it works on, from 1; 0 before the first.
        samples: file and row of the samples of its last pass, the first few; ``more`` are not named.
        at: when, in seconds of the machine's monotonic clock.
        error: why it failed: ``kind``, ``what``, ``where``, ``fix``.

    """

    rank: int
    pid: int
    host: str
    phase: Phase
    step: int = 0
    samples: tuple[str, ...] = ()
    more: int = 0
    at: float = 0.0
    error: Json = field(default_factory=dict)

    def doing(self) -> str:
        """Say where the rank was: step and samples."""
        if self.step == 0:
            return "before the first step"
        on = f", on {'; '.join(self.samples)}" if self.samples else ""
        more = f"; and {self.more} more" if self.more else ""
        return f"in step {self.step}{on}{more}"


class Heartbeat:
    """A rank's side: it beats before each pass, and writes its stacks when asked.

    Args:
        folder: the run's ``ranks/``.
        rank: this process's number.

    """

    def __init__(self, folder: Path, rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.beat_now = Beat(rank, os.getpid(), socket.gethostname(), "preparing")
        self._stack = (folder / f"rank-{rank}.stack").open("w")
        if hasattr(signal, "SIGUSR1"):
            # In C: also while the interpreter is inside a collective operation that does not end.
            faulthandler.register(signal.SIGUSR1, file=self._stack, all_threads=True)
        self.beat("preparing")

    def beat(self, phase: Phase, step: int | None = None, samples: Sequence[str] | None = None) -> None:
        """Write what comes next; ``step`` and ``samples`` stay what they were where they are not given."""
        before = self.beat_now
        if samples is None:
            named, more = before.samples, before.more
        else:
            named, more = tuple(samples[:NAMED_SAMPLES]), max(0, len(samples) - NAMED_SAMPLES)
        self.beat_now = Beat(
            before.rank,
            before.pid,
            before.host,
            phase,
            before.step if step is None else step,
            named,
            more,
            time.monotonic(),
        )
        _write(self.folder, self.beat_now)


def failed(folder: Path, rank: int, error: TanzimError) -> None:
    """Write why this process, the rank ``rank``, ends; where it was stays written."""
    known = {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
    last = next((beat for beat in beats(folder) if beat.rank == rank), None)
    last = last or Beat(rank, os.getpid(), socket.gethostname(), "preparing")
    _write(folder, replace(last, phase="failed", at=time.monotonic(), error=known))


def _write(folder: Path, beat: Beat) -> None:
    path = folder / f"rank-{beat.rank}.json"
    temporary = path.with_suffix(".new")
    # Whole or not at all, but not synced: it is for those who watch, not for after a power cut.
    temporary.write_text(json.dumps(asdict(beat), ensure_ascii=False), encoding="utf-8")
    os.replace(temporary, path)


def beats(folder: Path) -> list[Beat]:
    """Read the last beat of every rank, by rank."""
    found = []
    for path in folder.glob("rank-*.json"):
        with suppress(FileNotFoundError):  # a run that begins again removes them
            value = read_json(path)
            found.append(Beat(**value | {"samples": tuple(value["samples"])}))
    return sorted(found, key=lambda beat: beat.rank)


def forget(folder: Path, ranks: Sequence[int]) -> None:
    """Remove what ``ranks`` wrote in an earlier job."""
    for rank in ranks:
        for suffix in ("json", "stack", "log", "new"):
            (folder / f"rank-{rank}.{suffix}").unlink(missing_ok=True)


def silent(found: Sequence[Beat], limit: float, now: float) -> list[Beat]:
    """Return the ranks to blame for a job that does not move.

    Args:
        found: the beats of this machine's ranks.
        limit: seconds without a beat that are too long.
        now: the machine's monotonic clock.

    Returns:
        Ranks that have worked on one thing for longer than ``limit``; where there is none, those that have
        waited for longer than twice that (for ranks of another machine, which has its own watchdog).

    """
    working = [beat for beat in found if beat.phase == "working" and now - beat.at > limit]
    return working or [beat for beat in found if beat.phase == "waiting" and now - beat.at > 2 * limit]


def dump_stacks(folder: Path, found: Sequence[Beat]) -> dict[int, Path | None]:
    """Let the ranks write the stacks of all their threads.

    Returns:
        The file of each rank; None where it wrote nothing, as one whose process is stopped.

    """
    files = {beat.rank: folder / f"rank-{beat.rank}.stack" for beat in found}
    for beat in found:
        with suppress(ProcessLookupError):
            os.kill(beat.pid, signal.SIGUSR1)
    end = time.monotonic() + STACK_SECONDS
    while time.monotonic() < end and not all(_size(file) for file in files.values()):
        time.sleep(0.05)
    return {rank: file if _size(file) else None for rank, file in files.items()}


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
