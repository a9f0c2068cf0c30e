"""The process of one job: it has a folder and a lock, and outlives the server that started it.

The lock is held by the process itself (it inherits the open file), and the system lets go of it however the
process ends. So "is it running" has one answer, whoever asks and whoever was killed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tanzim.core.files import read_json, write_json
from tanzim.core.records import Json

_LOCK, _PID, _STARTS = "lock", "pid", "starts.json"
EVENTS, CHECKED, OUTCOME, LOG = "events.jsonl", "checked", "outcome.json", "log.txt"


class JobFolder:
    """What a server and a job's process leave for one another.

    The process writes ``events.jsonl`` as it goes, ``checked`` when the data has been found good, and
    ``outcome.json`` when it has come to an end of its own: status, and error or adapter. Without an outcome,
    a process that is gone was killed, or stopped when it was asked to.

    Args:
        path: of this job alone.

    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self) -> int | None:
        """Take the lock; None while the job's process (or another server) has it.

        Returns:
            An open file descriptor; closing it lets go.

        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def start(self, command: list[str], lock: int, environment: Mapping[str, str]) -> int:
        """Start the process in a session of its own, and hand the lock on to it; return its id."""
        os.set_inheritable(lock, True)
        (self.path / _PID).unlink(
            missing_ok=True
        )  # its number may be another process's by now
        with (self.path / LOG).open("ab") as log, open(os.devnull, "rb") as nothing:
            # Not a Popen: it would call a process that outlives us a fault.
            process = os.posix_spawn(
                command[0],
                command,
                {**os.environ, **environment},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        self.sign(process)
        return process

    def sign(self, process: int) -> None:
        """Write down the process's id: the server does when it has started it, and the process itself."""
        write_json(self.path / _PID, process)

    def signal(self, number: int) -> bool:
        """Send the process, which holds the lock, a signal; tell whether that could be done."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(read_json(self.path / _PID), number)
            return True
        return False

    @property
    def checked(self) -> bool:
        """Whether the data has been found good."""
        return (self.path / CHECKED).is_file()

    def deaths(self) -> int:
        """Return how often the process was started since the job last got further."""
        path = self.path / _STARTS
        before: Json = read_json(path) if path.is_file() else {"reached": None}
        return int(before["count"]) if before["reached"] == self._reached() else 0

    def count_start(self) -> None:
        """Count a start."""
        write_json(self.path / _STARTS, {"reached": self._reached(), "count": self.deaths() + 1})

    def _reached(self) -> list[str]:
        return sorted(str(path) for path in self.path.glob("runs/*/checkpoints/checkpoint-*"))

    def outcome(self) -> Json | None:
        """Return how the job ended; None while it has not."""
        path = self.path / OUTCOME
        found: Json | None = read_json(path) if path.is_file() else None
        return found
