"""The folder that keeps what was read and what each step made: one user at a time, and old results go."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tanzim.core.files import read_json, write_json
from tanzim.core.records import Json, Progress

STEPS = ".steps"  # the usual name of the folder
_WAIT = 0.5  # seconds between two looks whether another preparation has ended
_RECORD = "preparations.json"


def used(folder: Path) -> Path:
    """Make a folder of results, or note that it is still of use; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    return folder


@contextmanager
def alone(cache: Path, name: str, progress: Progress) -> Iterator[None]:
    """Keep other preparations out of a cache until the block ends; wait for one that is in it.

    The system lets go of the lock however the process ends.

    Args:
        cache: the folder.
        name: of this preparation; the same for the same data, settings and destination.
        progress: told that it waits.

    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress(0, None, "waiting for another preparation to end")
                time.sleep(_WAIT)
        started = _started(cache)
        started[name] = time.time_ns()
        write_json(cache / _RECORD, started)
        yield


def prune(cache: Path, newest: int) -> Json:
    """Delete the results that none of the newest preparations used, finished or not.

    Args:
        cache: the folder, which nobody else is using.
        newest: how many preparations count.

    Returns:
        What the report says: the folder, its bytes, and the results and bytes that were deleted.

    """
    started = dict(sorted(_started(cache).items(), key=lambda pair: -pair[1])[:newest])
    since = min(started.values(), default=0)
    found = [folder for folder in cache.iterdir() if folder.is_dir()]
    # A clock of the file system may lag behind by some milliseconds.
    old = [folder for folder in found if folder.stat().st_mtime_ns < since - 10**9]
    before = _size(found)
    for folder in old:
        shutil.rmtree(folder)
    after = _size([folder for folder in found if folder not in set(old)])
    write_json(cache / _RECORD, started)
    return {
        "folder": str(cache),
        "bytes": after,
        "deleted": len(old),
        "deleted_bytes": before - after,
        "rule": f"kept is what the newest {newest} preparations used (data.kept_preparations)",
    }


def _started(cache: Path) -> dict[str, int]:
    path = cache / _RECORD
    try:
        found: dict[str, int] = read_json(path) if path.is_file() else {}
    except json.JSONDecodeError:  # damaged: it only decides what may go
        found = {}
    return found


def _size(folders: list[Path]) -> int:
    """Return the bytes of all files below; one with several names counts once."""
    files = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in files}.values())
