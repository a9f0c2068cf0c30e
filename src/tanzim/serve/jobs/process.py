"""What a server and a job's process have in common: the job's folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tanzim.core.files import read_json, write_json
from tanzim.core.records import Json

_LOCK, _PID, _DEATHS = "lock", "pid", "deaths.json"
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
        """Take the lock; None while somebody has it.

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

    @property
    def pid(self) -> int | None:
        """The process that works here, as long as it does; None if it has not said so yet."""
        path = self.path / _PID
        return int(read_json(path)) if path.is_file() else None

    def sign(self, process: int | None) -> None:
        """Write down the process's id: the server does when it has started it, and the process itself.

        Args:
            process: None as long as it is not known: an old number may be another process's by now.

        """
        if process is None:
            (self.path / _PID).unlink(missing_ok=True)
        else:
            write_json(self.path / _PID, process)

    @property
    def checked(self) -> bool:
        """Whether the data has been found good."""
        return (self.path / CHECKED).is_file()

    def count_death(self, attempt: int) -> int:
        """Count, once, that an attempt's process died; return how many did since the job last got further."""
        reached = sorted(str(path) for path in self.path.glob("runs/*/checkpoints/checkpoint-*"))
        path = self.path / _DEATHS
        before: Json = read_json(path) if path.is_file() else {"attempt": 0, "reached": reached, "count": 0}
        if before["attempt"] == attempt:
            return int(before["count"])
        count = before["count"] + 1 if before["reached"] == reached else 1
        write_json(path, {"attempt": attempt, "reached": reached, "count": count})
        return int(count)

    def close(self) -> None:
        """Leave the end of a cancelled job, so that a process that comes late has nothing to do."""
        write_json(self.path / OUTCOME, {"status": "cancelled"})

    def outcome(self) -> Json | None:
        """Return how the job ended; None while it has not."""
        path = self.path / OUTCOME
        found: Json | None = read_json(path) if path.is_file() else None
        return found
