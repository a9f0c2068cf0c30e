"""Streams of Airbyte connectors, by the Airbyte protocol: spec, check, discover, read.

A stream that can say what is new is read incrementally: its records and the state behind them are kept, and
the next fetch goes on from there, be it after ``data.refresh`` or after an interruption. Of records with the
same primary key the latest counts. Protocol: https://docs.airbyte.com/understanding-airbyte/airbyte-protocol
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from tanzim.core.errors import ConfigError
from tanzim.core.files import new_file, read_json, write_json
from tanzim.core.records import Json
from tanzim.data.ingest.airbyte_env import Connector, installed
from tanzim.data.ingest.config import AirbyteSource
from tanzim.data.ingest.fetch import Job
from tanzim.data.ingest.secrets import Secrets
from tanzim.data.ingest.snapshot import SnapshotWriter, described

_NAMED = re.compile(r"\$\{\w+\}")
_EVERY = 2.0  # seconds between two states that are written down
_DELETED = "_ab_cdc_deleted_at"  # the column by which a change log says that a record is gone


@dataclass(slots=True)
class Stream:
    """One stream of a connector.

    Args:
        name: of the stream.
        about: what the connector's catalog says of it.
        raw: its records as they came.

    """

    name: str
    about: Json
    raw: Path

    @property
    def incremental(self) -> bool:
        """Whether it can say what is new."""
        cursor = self.about.get("source_defined_cursor") or self.about.get("default_cursor_field")
        return "incremental" in (self.about.get("supported_sync_modes") or []) and bool(cursor)

    @property
    def key(self) -> list[list[str]]:
        """Paths of the columns that make a record unique."""
        return self.about.get("source_defined_primary_key") or []

    def configured(self) -> Json:
        """Return its part of the configured catalog."""
        return {
            "stream": self.about,
            "sync_mode": "incremental" if self.incremental else "full_refresh",
            "destination_sync_mode": "append_dedup" if self.key and self.incremental else "append",
            "cursor_field": self.about.get("default_cursor_field") or [],
            "primary_key": self.key,
        }


def fetch(source: AirbyteSource, job: Job) -> list[Json]:
    """Read the streams of a connector into the folder of ``job``: all, or what is new since the last time.

    Raises:
        ConfigError: a secret stands in the config, or there is no stream of that name.
        DataError: the connector cannot be installed, refuses its settings, or fails.

    """
    secrets = Secrets(source.connector)
    program = installed(source.connector, source.python)
    connector = Connector(program, job.limit, secrets)
    with closing(connector):
        _check_secrets(source, _one(connector, "SPEC", "spec")["spec"].get("connectionSpecification"))
        config = connector.file("config.json", secrets.fill_all(source.config))
        status = _one(connector, "CONNECTION_STATUS", "check", "--config", config)["connectionStatus"]
        if status.get("status") != "SUCCEEDED":
            raise connector.failed(status.get("message") or "it cannot connect")
        catalog = _one(connector, "CATALOG", "discover", "--config", config)["catalog"]
        streams = _chosen(source, _streams(connector, catalog), job.folder)
        modes = _sync(connector, config, streams, job)
    return [
        described(
            stream.raw.with_suffix(".rows.jsonl").name, f"{program.package}/{stream.name}",
            "records of an Airbyte stream", stream=stream.name,
            connector=f"{program.package}=={program.version}", sync=modes[stream.name], **_publish(stream),
        )
        for stream in streams
    ]  # fmt: skip


def _one(connector: Connector, kind: str, *arguments: str) -> Json:
    """Return the one message that a command is to send."""
    found: Json | None = None
    for message in connector.messages(*arguments):
        if message["type"] == kind:
            found = message
    if found is None:
        raise connector.failed(f"it does not answer '{arguments[0]}'")
    return found


def _check_secrets(source: AirbyteSource, schema: Any) -> None:  # noqa: ANN401 - JSON
    for path, value in _secret_values(schema, source.config, ()):
        if value and not (isinstance(value, str) and _NAMED.fullmatch(value)):
            raise ConfigError(
                f"'{'.'.join(path)}' is a secret, which does not belong into a config file",
                where=f"data.sources, {source.connector}",
                fix="write ${NAME} in its place, and set that variable in the environment",
            )


def _secret_values(schema: Any, value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - JSON
    """Yield the values that a connector's specification calls secret, and their paths."""
    if not isinstance(schema, dict):
        return
    if schema.get("airbyte_secret"):
        yield path, value
        return
    for branches in (schema.get("oneOf"), schema.get("anyOf"), schema.get("allOf")):
        for branch in branches if isinstance(branches, list) else ():
            yield from _secret_values(branch, value, path)
    properties = schema.get("properties")
    if isinstance(value, dict) and isinstance(properties, dict):
        for name, inner in properties.items():
            if name in value:
                yield from _secret_values(inner, value[name], (*path, name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _secret_values(schema.get("items"), one, (*path, str(number)))


def _streams(connector: Connector, catalog: Json) -> list[Json]:
    streams = catalog.get("streams")
    if not isinstance(streams, list) or not all(map(_is_stream, streams)):
        raise connector.failed("its catalog is not one of the protocol")
    return streams


def _is_stream(value: Any) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(value, dict):
        return False
    keys = value.get("source_defined_primary_key") or []
    lists = [value.get("supported_sync_modes") or [], value.get("default_cursor_field") or [], keys]
    return (
        _is_name(value.get("name"))
        and all(isinstance(one, list) for one in lists)
        and all(isinstance(path, list) and all(map(_is_name, path)) for path in keys)
    )


def _is_name(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Say whether a value is text, and not half a character, of which JSON can speak."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _chosen(source: AirbyteSource, known: list[Json], folder: Path) -> list[Stream]:
    names = [one["name"] for one in known]
    wrong = [name for name in source.streams if name not in names]
    if wrong or not known:
        raise ConfigError(
            f"the connector has no stream '{wrong[0]}'" if wrong else "the connector has no streams",
            where=f"data.sources, {source.connector}",
            fix=f"it has {', '.join(sorted(names)[:30])}",
        )
    return [
        Stream(one["name"], one, folder / f"{hashlib.sha256(one['name'].encode()).hexdigest()[:12]}.jsonl")
        for one in known
        if not source.streams or one["name"] in source.streams
    ]


@dataclass(slots=True)
class _State:
    """How far each stream is: the connector's own words, and the bytes of the records behind them.

    Args:
        path: the file that keeps it.
        messages: the latest state of each stream, or one of all of them.
        sizes: bytes of each stream's records up to that state.

    """

    path: Path
    messages: dict[str, Json] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    written: float = 0.0

    @classmethod
    def read(cls, path: Path) -> _State:
        known = read_json(path) if path.is_file() else {}
        return cls(path, known.get("messages", {}), known.get("sizes", {}))

    def take(self, state: Json, sizes: dict[str, int]) -> None:
        """Note a state message, and the sizes at that moment.

        Raises:
            ValueError: it is of one stream, and does not say of which.

        """
        if state.get("type") == "STREAM":
            part: Any = state
            for key in ("stream", "stream_descriptor", "name"):
                part = part.get(key) if isinstance(part, dict) else None
            if not _is_name(part):
                raise ValueError("it sends a state that names no stream")
            name = str(part)
            self.messages[name] = state
            self.sizes[name] = sizes.get(name, 0)
        else:  # of all streams at once
            self.messages = {"": state}
            self.sizes = sizes

    def write(self, *, now: bool) -> None:
        """Write it down, unless that was done a moment ago."""
        if now or time.monotonic() - self.written >= _EVERY:
            write_json(self.path, {"messages": self.messages, "sizes": self.sizes})
            self.written = time.monotonic()


def _sync(connector: Connector, config: str, streams: list[Stream], job: Job) -> dict[str, str]:
    """Read new records; return how each stream was read."""
    state = _State.read(job.folder / "state.json")
    kept = {one.name for one in streams if one.incremental and one.name in state.sizes}
    if "" not in state.messages:
        state.messages = {name: one for name, one in state.messages.items() if name in kept}
    state.sizes = {name: state.sizes[name] for name in kept}
    catalog = connector.file("catalog.json", {"streams": [one.configured() for one in streams]})
    before = connector.file("state.json", list(state.messages.values()))
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for one in streams:
            files[one.name] = stack.enter_context(one.raw.open("ab"))
            files[one.name].truncate(state.sizes.get(one.name, 0))
        writers = {name: SnapshotWriter(stream) for name, stream in files.items()}
        rows = 0
        arguments = ("--config", config, "--catalog", catalog, "--state", before)
        for message in connector.messages("read", *arguments):
            if message["type"] == "RECORD":
                record = message["record"]
                name, data = str(record.get("stream")), record.get("data")
                if name not in writers or not isinstance(data, dict):
                    raise connector.failed(f"it sends a record of a stream that was not asked for: {name}")
                writers[name].row(data, _about(record))
                rows += 1
                if rows % 1000 == 0:
                    job.progress(rows, None, f"fetching {name}")
            elif message["type"] == "STATE":
                for stream in files.values():
                    stream.flush()
                try:
                    state.take(message["state"], {name: stream.tell() for name, stream in files.items()})
                except ValueError as error:
                    raise connector.failed(error) from None
                state.write(now=False)
    state.write(now=True)
    return {one.name: "incremental" if one.incremental else "full_refresh" for one in streams}


def _about(record: Json) -> Json:
    emitted = record.get("emitted_at")
    if not isinstance(emitted, int | float):
        return {}
    try:
        return {"fetched": datetime.fromtimestamp(emitted / 1000, UTC).isoformat(timespec="seconds")}
    except (ValueError, OverflowError, OSError):
        return {}  # no time that a calendar knows


def _publish(stream: Stream) -> Json:
    """Write the rows of a stream as they are read: of each primary key the latest, none that is gone."""
    out = stream.raw.with_suffix(".rows.jsonl")
    counts = {"rows": 0, "replaced": 0, "deleted": 0}
    with (
        tempfile.TemporaryDirectory(prefix="tanzim-keys-") as folder,
        closing(sqlite3.connect(Path(folder) / "keys.db", isolation_level=None)) as keys,
        new_file(out) as target,
    ):
        keys.execute("PRAGMA journal_mode = OFF")
        keys.execute("CREATE TABLE last (key TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        keys.execute("BEGIN")
        if stream.key:
            keys.executemany(
                "INSERT OR REPLACE INTO last VALUES (?, ?)",
                ((_key(stream, line), number) for number, line in enumerate(_lines(stream.raw))),
            )
        for number, line in enumerate(_lines(stream.raw)):
            if stream.key:
                found = keys.execute("SELECT line FROM last WHERE key = ?", (_key(stream, line),))
                if found.fetchone()[0] != number:
                    counts["replaced"] += 1
                    continue
                if _DELETED.encode() in line and json.loads(line)["value"].get(_DELETED):
                    counts["deleted"] += 1
                    continue
            counts["rows"] += 1
            target.write(line)
    return counts


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from stream


def _key(stream: Stream, line: bytes) -> str:
    value = json.loads(line)["value"]
    parts = []
    for path in stream.key:
        part: Any = value
        for name in path:
            part = part.get(name) if isinstance(part, dict) else None
        parts.append(part)
    return json.dumps(parts, sort_keys=True)
