"""Sources that are fetched before they are read: once, into the cache folder, until ``data.refresh``."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tanzim.core.files import cache_folder, read_json, write_json
from tanzim.core.records import Json, Progress, no_progress
from tanzim.data.cache import share
from tanzim.data.config import DataConfig
from tanzim.data.ingest.config import SourceConfig
from tanzim.data.ingest.guard import Guard
from tanzim.data.ingest.sources import Source

_FETCHERS = {
    "sql": "tanzim.data.ingest.sql",
    "web": "tanzim.data.ingest.web",
    "airbyte": "tanzim.data.ingest.airbyte",
}
_USES = {"split": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, slots=True)
class Job:
    """Where and how a source is fetched.

    Args:
        folder: takes the snapshots; the same each time for the same settings.
        guard: says which addresses may be connected to.
        limit: bytes of one row at the most.
        progress: told the rows so far.

    """

    folder: Path
    guard: Guard = field(default_factory=Guard)
    limit: int = 32_000_000
    progress: Progress = no_progress


def fetch_all(
    config: DataConfig, progress: Progress, cache: Path | None = None
) -> Iterator[tuple[Source, int]]:
    """Yield each source of ``data.sources``, fetched, and its origin (0 to be split, 1 validation, 2 test).

    A source that was fetched before is taken from the cache folder, unless ``data.refresh`` is true: then
    it is fetched again (of Airbyte streams that can say so, only what is new).

    Args:
        config: the sources.
        progress: told the rows so far.
        cache: of the preparation that uses them (see `cache.prune_shared`); None if none does.

    Raises:
        DataError: a source cannot be had.
        ConfigError: its settings are wrong.
        MissingExtra: a package is not installed.

    """
    for source in config.sources:
        folder = _folder(source, config)
        if cache is not None:
            share(folder, cache)
        job = Job(folder, Guard(tuple(config.allow_hosts)), int(config.max_line_mb * 1e6), progress)
        for known in fetch(source, job, refresh=config.refresh):
            about = {key: value for key, value in known.items() if key not in ("file", "name")}
            name = source.name or known["name"]
            if source.name and known.get("stream"):
                name = f"{source.name}/{known['stream']}"
            yield Source(name, folder / known["file"], about), _USES[source.use]


def fetch(source: SourceConfig, job: Job, *, refresh: bool = False) -> list[Json]:
    """Fetch a source into the folder of ``job``, or return what is there (see `snapshot.described`)."""
    job.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    done = job.folder / "fetched.json"
    with _alone(job.folder):
        if refresh or not done.is_file():
            for part in job.folder.glob(".*.jsonl.*"):  # of a run that was killed
                part.unlink()
            fetcher: Callable[[SourceConfig, Job], list[Json]]
            fetcher = importlib.import_module(_FETCHERS[source.type]).fetch
            write_json(done, fetcher(source, job))
        return list(read_json(done))


def _folder(source: SourceConfig, config: DataConfig) -> Path:
    settings = source.model_dump(mode="json", exclude={"name", "use"})
    allowed = config.allow_hosts if source.type == "web" else []
    key = hashlib.sha256(json.dumps([settings, allowed], sort_keys=True).encode()).hexdigest()
    return sources_folder() / f"{source.type}-{key[:24]}"


def sources_folder() -> Path:
    """Return where the sources of all projects are kept."""
    return cache_folder() / "sources"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other run fetch into the same folder at the same time."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
