"""A lease on a job's folder: at most one process works there, whoever lost whom from sight.

Locks of files do not hold between machines on every shared storage. What does hold is that a file is made by
one only, and that who opens a file reads what was last written and closed. So each process that takes over
makes the file of the next number in ``lease/`` and writes into it again and again. A newcomer waits until
nothing new was written for the whole lease, by its own clock; the holder ends itself when it could not write
for two thirds of it, or when there is a file of a higher number. Clocks need not agree.

Reference: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache
consistency", SOSP 1989.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER, _RELEASED = "lease", "released"
_USUAL = 60.0  # seconds
LOST = 75  # exit status of a process that ended itself


@contextmanager
def leased(folder: Path, seconds: float | None) -> Iterator[float]:
    """Hold the lease of a folder; yield the seconds that were waited for it.

    The process ends at once (status `LOST`) when it may no longer hold it.

    Args:
        folder: the job's.
        seconds: of silence after which the holder has ended. None: no lease is needed, unless there was one.

    """
    place = folder / _FOLDER
    if seconds is None and not place.is_dir():
        yield 0.0
        return
    start = time.monotonic()
    mine = _take(place, seconds or _USUAL)
    keeper = _Keeper(mine, seconds or _USUAL)
    keeper.start()
    try:
        yield time.monotonic() - start
    finally:
        keeper.stop()
        mine.write_text(_RELEASED, encoding="utf-8")


def _take(place: Path, seconds: float) -> Path:
    """Wait until nobody holds the lease, and make the file of the next number."""
    place.mkdir(exist_ok=True)
    known: tuple[int, str] | None = None
    since = 0.0
    while True:
        number = max((int(path.name) for path in place.iterdir()), default=0)
        text = (place / str(number)).read_text(encoding="utf-8") if number else _RELEASED
        if known != (number, text):
            known, since = (number, text), time.monotonic()
        if text == _RELEASED or time.monotonic() - since > max(seconds, _term(text)):
            mine = place / str(number + 1)
            with suppress(FileExistsError):  # another was faster: wait for that one
                mine.open("x").close()
                return mine
        time.sleep(seconds / 20)


def _term(text: str) -> float:
    """Return the seconds that a holder wrote it may be silent; 0 before it has written."""
    return float(text.split(" ", 1)[0]) if text.endswith("\n") else 0.0


class _Keeper:
    """Writes into the lease's file, and watches over that in a thread that touches no storage."""

    def __init__(self, mine: Path, seconds: float) -> None:
        self._mine, self._seconds = mine, seconds
        self._next = mine.with_name(str(int(mine.name) + 1))
        self._written = time.monotonic()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._watch)]

    def start(self) -> None:
        """Start writing."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop writing."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        beat = f"{self._seconds:g} {socket.gethostname()} {os.getpid()}"
        for count in itertools.count(1):
            begun = time.monotonic()
            with suppress(
                OSError
            ):  # the storage is away for a moment; the watch knows for how long it may be
                if self._next.exists():
                    os._exit(LOST)
                self._mine.write_text(f"{beat} {count}\n", encoding="utf-8")
                self._written = begun
            if self._over.wait(self._seconds / 10):
                return

    def _watch(self) -> None:
        while not self._over.wait(self._seconds / 20):
            if time.monotonic() - self._written > self._seconds * 2 / 3:
                os._exit(LOST)
