"""Jobs as processes of this machine, which outlive the server that started them.

The folder's lock is held by the process itself (it inherits the open file), and the system lets go of it
however the process ends. So "is it running" has one answer, whoever asks and whoever was killed.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tanzim.serve.jobs.executor import GRACE, Seen, State
from tanzim.serve.jobs.process import LOG, JobFolder

_VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE"}  # idle threads sleep


class LocalExecutor:
    """Runs each attempt in a process and session of its own; implements `Executor`."""

    lease: float | None = None

    def __init__(self) -> None:
        self._locks: dict[Path, int] = {}
        self._children: set[int] = set()  # processes that we must take leave of when they end
        self._told: dict[Path, float] = {}  # job → when its process was asked to end

    def look(self, folder: JobFolder, attempt: int) -> Seen:
        """Take the lock, if the process does not have it."""
        self._children = {pid for pid in self._children if _lives(pid)}
        lock = folder.claim()
        if lock is None:
            return Seen(State.ALIVE)
        self._locks[folder.path] = lock
        self._told.pop(folder.path, None)
        return Seen(State.GONE if attempt else State.NEW)

    def start(self, folder: JobFolder, attempt: int, command: list[str]) -> None:
        """Start the process, and hand the lock on to it."""
        folder.sign(None)
        lock = self._locks[folder.path]
        with (folder.path / LOG).open("ab") as log, open(os.devnull, "rb") as nothing:
            os.set_inheritable(lock, True)
            try:
                # Not a Popen: it would call a process that outlives us a fault.
                process = os.posix_spawn(
                    command[0],
                    command,
                    {**os.environ, **_VARIABLES},
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                        (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                        (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                    ],
                    setsid=True,
                )
            finally:
                os.set_inheritable(lock, False)  # or the next job of this round would hold it, too
        self._children.add(process)
        folder.sign(process)

    def stop(self, folder: JobFolder, attempt: int) -> None:
        """Send SIGTERM once, and SIGKILL when it had time enough."""
        pid = folder.pid
        if pid is None:  # the server was killed as it started it: the process will sign for itself
            return
        told = self._told.get(folder.path)
        with suppress(ProcessLookupError):
            if told is None:
                self._told[folder.path] = time.monotonic()
                os.kill(pid, signal.SIGTERM)
            elif time.monotonic() - told > GRACE:
                os.kill(pid, signal.SIGKILL)

    def release(self) -> None:
        """Let go of the locks; a process that was started keeps its own copy."""
        while self._locks:
            os.close(self._locks.popitem()[1])


def _lives(child: int) -> bool:
    """Tell whether a child runs; one that has ended is taken leave of."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] == 0
    except ChildProcessError:  # who started the server has SIGCHLD ignored: the system took leave of it
        return False
