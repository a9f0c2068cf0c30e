"""A backup of all that the server remembers in one file, and its restoration, also into another database.

A tar archive: ``backup.json``, the rows of each table as JSON Lines, the files, and the adapters of the
models. Jobs that had not ended begin anew after a restoration: what their processes had reached is not in it,
nor are uploads that had not ended.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from sqlalchemy import Connection, delete, func, insert, select, update

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.files import new_file
from tanzim.core.records import Json, Progress, no_progress
from tanzim.serve.store.database import writing
from tanzim.serve.store.files import blob_key
from tanzim.serve.store.jobs import UNFINISHED
from tanzim.serve.store.store import Store
from tanzim.serve.store.tables import events, files, jobs, metadata, models, parts, uploads

FORMAT = 1
_HEAD = "backup.json"
_TABLES = [table for table in metadata.sorted_tables if table not in (uploads, parts)]


def backup(store: Store, out: Path, *, progress: Progress = no_progress) -> Json:
    """Write a backup; the server may be running.

    Args:
        store: what is saved, as it is at one moment.
        out: the file; it appears whole or not at all.
        progress: told the files done.

    Returns:
        The rows of each table.

    Raises:
        OSError: the disk is full.

    """
    # On PostgreSQL one moment must be asked for; SQLite's transactions always see one.
    isolated = store.database
    if isolated.dialect.name == "postgresql":
        isolated = isolated.execution_options(isolation_level="REPEATABLE READ")
    with new_file(out) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        with isolated.begin() as connection:
            rows = {table.name: list(_rows(connection, table.name)) for table in _TABLES}
        counts = {name: len(found) for name, found in rows.items()}
        _add(archive, _HEAD, json.dumps({"format": FORMAT, "rows": counts}).encode())
        for name, found in rows.items():
            _add(archive, f"tables/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in found).encode())
        total = len(rows["files"]) + len(rows["models"])
        for number, row in enumerate(rows["files"]):
            _add_file(archive, store, row["id"])
            progress(number + 1, total, "files")
        for number, row in enumerate(rows["models"], len(rows["files"])):
            _add_adapter(archive, store, row["adapter"])
            progress(number + 1, total, "adapters")
    return counts


def _rows(connection: Connection, name: str) -> Iterator[Json]:
    table = metadata.tables[name]
    for row in connection.execute(select(table).order_by(table.c.number)).mappings():
        yield {key: value for key, value in row.items() if key != "number"}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, store: Store, id_: str) -> None:
    """Add a client's file; one that was deleted since the rows were read is left out."""
    with tempfile.TemporaryFile() as copy:
        try:
            with store.files.open(id_) as source:
                shutil.copyfileobj(source, copy, 1 << 20)
        except FileNotFoundError:
            return
        member = tarfile.TarInfo(blob_key(id_))
        member.size = copy.tell()
        copy.seek(0)
        archive.addfile(member, copy)


def _add_adapter(archive: tarfile.TarFile, store: Store, adapter: str) -> None:
    """Add a model's adapter, whole; one that was deleted since the rows were read is left out."""
    with tempfile.TemporaryDirectory() as place:
        try:
            copy = shutil.copytree(store.root / adapter, Path(place) / "adapter")
        except (FileNotFoundError, shutil.Error):
            if (store.root / adapter).exists():
                raise
            return
        archive.add(copy, arcname=f"root/{adapter}")


def restore(store: Store, path: Path, *, progress: Progress = no_progress) -> Json:
    """Fill an empty store from a backup.

    Args:
        store: as it was just made.
        path: what `backup` wrote.
        progress: told the parts done.

    Returns:
        The rows of each table.

    Raises:
        ConfigError: the store is not empty.
        DataError: the file is no backup, or damaged.

    """
    with store.database.begin() as connection:
        for table in metadata.sorted_tables:
            if connection.scalar(select(func.count()).select_from(table)):
                raise ConfigError(
                    f"the server's database is not empty (table {table.name})",
                    where=store.database.url.render_as_string(hide_password=True),
                    fix="restore into a new serve.folder and serve.database",
                )
    try:
        with tarfile.open(path, mode="r:") as archive:
            return _fill(store, archive, progress)
    except (tarfile.TarError, json.JSONDecodeError, KeyError, OSError) as error:
        raise DataError(f"this is no backup, or it is damaged ({error})", where=str(path)) from None


def _fill(store: Store, archive: tarfile.TarFile, progress: Progress) -> Json:
    head = json.loads(_content(archive, _HEAD).read())
    if head["format"] != FORMAT:
        raise DataError(f"the backup has format {head['format']}; this version reads {FORMAT}")
    members, kept, made = archive.getmembers(), set(), 0
    for number, member in enumerate(members):
        place = PurePosixPath(member.name)
        if place.parts[0] == "files" and member.isfile():
            with tempfile.NamedTemporaryFile(dir=store.root) as copy:
                shutil.copyfileobj(_content(archive, member.name), copy, 1 << 20)
                copy.flush()
                store.files.put(place.name, Path(copy.name))
                kept.add(place.name)
        elif place.parts[0] == "root":
            archive.extract(member, store.root / "restored", filter="data")
        progress(number + 1, len(members), "parts")
    if (store.root / "restored" / "root").is_dir():
        shutil.copytree(store.root / "restored" / "root", store.root, dirs_exist_ok=True)
        shutil.rmtree(store.root / "restored")
    with writing(store.database) as connection:
        for table in _TABLES:
            lines = _content(archive, f"tables/{table.name}.jsonl").read().splitlines()
            rows = [json.loads(line) for line in lines]
            if table is files:  # one that was deleted while the backup was made is not in it
                rows = [row for row in rows if row["id"] in kept]
            if table is models:
                rows = [row for row in rows if (store.root / row["adapter"]).is_dir()]
                made = len(rows)
            if rows:
                connection.execute(insert(table), rows)
        _begin_anew(connection)
    counts: Json = head["rows"] | {"files": len(kept), "models": made}
    return counts


def _content(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    content = archive.extractfile(name)
    if content is None:
        raise KeyError(f"{name} is not in it")
    return content


def _begin_anew(connection: Connection) -> None:
    """Let the jobs that had not ended start from the beginning, on whichever machine this is."""
    unfinished = jobs.c.status.in_(UNFINISHED)
    started = select(jobs.c.id).where(unfinished)
    connection.execute(delete(events).where(events.c.job.in_(started), events.c.type == "metrics"))
    connection.execute(
        update(jobs).where(unfinished).values(owner=None, read_bytes=0, attempts=0, estimated_finish=None)
    )
