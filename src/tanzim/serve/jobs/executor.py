"""Where the processes of jobs run: the seam between the supervisor and `local` or `ray`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tanzim.serve.jobs.config import ExecutorConfig, LocalExecution
from tanzim.serve.jobs.process import JobFolder

GRACE = 120  # seconds that a process gets to save what it has


class State(Enum):
    """What is known of one attempt at a job."""

    NEW = "new"
    """It was never started, for all that the executor knows: it may be, under the same number."""
    ALIVE = "alive"
    """It has a process, waits for one, or may have one for all that is known now."""
    GONE = "gone"
    """Its process has ended, however it did."""
    UNBEGUN = "unbegun"
    """The executor has given it up before it had a process: the next may have more luck."""
    BARRED = "barred"
    """It can have no process there, and the next could not either."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at an attempt found.

    Args:
        state: of the attempt.
        said: what the job's owner should know of it, told as an event when it changes; "" for nothing.

    """

    state: State
    said: str = ""


class Executor(Protocol):
    """Starts, finds and ends the processes of jobs.

    An attempt is one process of a job; the first has number 1. A server that is killed at any moment finds
    every attempt again when it starts.
    """

    lease: float | None
    """Seconds of the lease that a process must hold while it works; None if it needs none."""

    def look(self, folder: JobFolder, attempt: int) -> Seen:
        """Find out about an attempt (0: there was none). Until `release`, what is not alive stays so."""

    def start(self, folder: JobFolder, attempt: int, command: list[str]) -> None:
        """Start the process of an attempt, in the round of looks that found no other alive."""

    def stop(self, folder: JobFolder, attempt: int) -> None:
        """Have a living process save what it has and end within `GRACE`; called as long as it lives."""

    def release(self) -> None:
        """End a round of looks."""


def open_executor(config: ExecutorConfig) -> Executor:
    """Return what ``serve.executor`` describes."""
    from tanzim.serve.jobs.local import LocalExecutor
    from tanzim.serve.jobs.ray import RayExecutor

    return LocalExecutor() if isinstance(config, LocalExecution) else RayExecutor(config)
