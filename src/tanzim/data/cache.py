"""The folders that keep what was fetched, what was read and what each step made; old results go."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tanzim.core.files import read_json, sha256, write_json
from tanzim.core.records import Json, Progress

STEPS = ".steps"  # the usual name of the folder
_WAIT = 0.5  # seconds between two looks whether another preparation has ended
_RECORD = "preparations.json"
_USERS = "used.json"


@functools.cache
def code() -> str:
    """Return a fingerprint of the code that makes results: of every module of the rooms core and data.

    It is part of each result's name, so that none that other code made is ever taken. The package's version
    would not do, which stays the same while somebody works on it; nor a version of each step, which is
    forgotten by whoever changes what the step calls.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for room in ("core", "data") for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root)} {sha256(path)}\n".encode())
    return digest.hexdigest()


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
        started = _record(cache / _RECORD)
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
    started = dict(sorted(_record(cache / _RECORD).items(), key=lambda pair: -pair[1])[:newest])
    write_json(cache / _RECORD, started)
    since = _since(cache)
    found = [folder for folder in cache.iterdir() if folder.is_dir()]
    # A clock of the file system may lag behind by some milliseconds.
    old = [folder for folder in found if folder.stat().st_mtime_ns < since - 10**9]
    before = _size(found)
    for folder in old:
        shutil.rmtree(folder)
    after = _size([folder for folder in found if folder not in set(old)])
    return {
        "folder": str(cache),
        "bytes": after,
        "deleted": len(old),
        "deleted_bytes": before - after,
        "rule": f"kept is what the newest {newest} preparations used (data.kept_preparations)",
    }


def share(folder: Path, cache: Path) -> None:
    """Make a folder that preparations with several caches may use, and note that those with this one do."""
    with _users(folder.parent) as users:
        folder.mkdir(exist_ok=True, mode=0o700)
        users.setdefault(folder.name, {})[str(cache.resolve())] = time.time_ns()


def prune_shared(store: Path, cache: Path) -> Json:
    """Delete the shared folders that no preparation uses any more, by the rule of `prune`, which went before.

    Args:
        store: where they lie.
        cache: of the preparation. Others have their own say over what they use, as long as they exist.

    Returns:
        What the report says: the folder, its bytes, and the folders and bytes that were deleted.

    """
    mine, since = str(cache.resolve()), _since(cache)
    with _users(store) as users:
        found = [folder for folder in store.iterdir() if folder.is_dir()]
        before = _size(found)
        for folder in found:
            known = users.get(folder.name, {mine: time.time_ns()})  # of an unknown one it counts from now
            users[folder.name] = {
                user: at
                for user, at in known.items()
                if (at >= since if user == mine else Path(user).is_dir())
            }
        old = [folder for folder in found if not users[folder.name]]
        for folder in old:
            shutil.rmtree(folder)
            del users[folder.name]
        after = _size([folder for folder in found if folder not in old])
    return {"folder": str(store), "bytes": after, "deleted": len(old), "deleted_bytes": before - after}


@contextmanager
def _users(store: Path) -> Iterator[dict[str, dict[str, int]]]:
    """Give who used which folder of a store, and when (ns); what is changed in it is kept."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users: dict[str, dict[str, int]] = _record(store / _USERS)
        yield users
        write_json(store / _USERS, users)


def _since(cache: Path) -> int:
    """Return when the oldest preparation that counts began, in ns."""
    return min(_record(cache / _RECORD).values(), default=0)


def _record(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
    except json.JSONDecodeError:  # damaged: it only decides what may go
        found = {}
    return found


def _size(folders: list[Path]) -> int:
    """Return the bytes of all files below; one with several names counts once."""
    files = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in files}.values())
