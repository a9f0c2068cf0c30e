"""What ranks print, passed on line by line with the rank before each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


class Tail:
    """Reads growing files.

    Args:
        write: takes each complete line.

    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.write = write
        self._seen: dict[Path, int] = {}  # bytes passed on

    def read(self, logs: Mapping[Path, int]) -> None:
        """Pass on what has come since the last call.

        Args:
            logs: the files there are, and whose rank's each is.

        """
        for path, rank in logs.items():
            with path.open("rb") as stream:
                stream.seek(self._seen.get(path, 0))
                whole, newline, _ = stream.read().rpartition(b"\n")  # the rest is still to come
            self._seen[path] = self._seen.get(path, 0) + len(whole) + len(newline)
            for line in whole.decode(errors="replace").splitlines():
                self.write(f"[rank {rank}] {line}")
