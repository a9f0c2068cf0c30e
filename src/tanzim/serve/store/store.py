"""All that the server remembers, opened at once."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from tanzim.core.files import sync_folder
from tanzim.serve.access.keys import Keys
from tanzim.serve.access.trail import Trail
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.blobs import Marked, open_blobs
from tanzim.serve.store.database import open_database
from tanzim.serve.store.files import Files
from tanzim.serve.store.jobs import Jobs, Models
from tanzim.serve.store.uploads import Uploads

ROOM = ".upload-"  # how folders for files on their way are called
_LEFT = 3600  # seconds that nothing on its way takes


@dataclass(frozen=True, slots=True)
class Store:
    """The database and the files.

    Args:
        root: the server's folder on this machine.
        database: where rows are.
        files: of clients.
        uploads: of files that come in parts.
        jobs: the queue.
        models: what jobs made.
        keys: who may come in.
        trail: what was done.

    """

    root: Path
    database: Engine
    files: Files
    uploads: Uploads
    jobs: Jobs
    models: Models
    keys: Keys
    trail: Trail

    def tidy(self) -> None:
        """Remove what kills and failures left half done an hour ago or earlier."""
        before = time.time() - _LEFT
        self.files.sweep(before)
        self.uploads.sweep()
        self.uploads.sweep_parts(before)
        for folder in self.root.glob(f"{ROOM}*"):
            with suppress(FileNotFoundError):
                if folder.stat().st_mtime < before:
                    shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the database."""
        self.database.dispose()


def open_store(config: ServeConfig) -> Store:
    """Open the store that ``config`` names; what is not there yet is made.

    Raises:
        ConfigError: the database or the place of the files cannot be used.

    """
    root = Path(config.folder).resolve()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # other users of the machine see nothing in it
    database = open_database(config.database or f"sqlite:///{root / 'server.sqlite'}")
    sync_folder(root)
    blobs = Marked(open_blobs(config.files or str(root)), root / "unsettled")
    return Store(
        root,
        database,
        Files(database, blobs),
        Uploads(database, blobs),
        Jobs(database),
        Models(database),
        Keys(database),
        Trail(database),
    )
