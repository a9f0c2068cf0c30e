"""``tanzim server`` and ``tanzim keys``: the store of the server that ``tanzim.yaml`` here describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tanzim.core.progress import Reporter
from tanzim.core.records import Json
from tanzim.pipeline.workspace import load_config
from tanzim.serve.access.keys import Keys
from tanzim.serve.store.backup import backup, restore
from tanzim.serve.store.store import open_store


@contextmanager
def open_keys() -> Iterator[Keys]:
    """Open the server's keys; it may be running.

    Raises:
        ConfigError: its database cannot be used.

    """
    with closing(open_store(load_config().serve)) as store:
        yield store.keys


def backup_server(out: Path, *, reporter: Reporter | None = None) -> Json:
    """Write all that the server remembers into one file (see `tanzim.serve.store.backup`).

    Raises:
        ConfigError: its database cannot be used.

    """
    with (
        closing(open_store(load_config().serve)) as store,
        (reporter or Reporter()).task("saving") as progress,
    ):
        return backup(store, out, progress=progress)


def restore_server(path: Path, *, reporter: Reporter | None = None) -> Json:
    """Fill an empty server from a backup.

    Raises:
        ConfigError: its database cannot be used, or is not empty.
        DataError: the file is no backup.

    """
    with (
        closing(open_store(load_config().serve)) as store,
        (reporter or Reporter()).task("restoring") as progress,
    ):
        return restore(store, path, progress=progress)
