"""What was fetched, as rows on disk: so that it is read, fingerprinted and resumed as any other file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

from tanzim.core.records import Json
from tanzim.data.ingest.encoding import TooLong, lines, read_bytes
from tanzim.data.ingest.json_rows import too_long
from tanzim.data.ingest.remote import AnyFile
from tanzim.data.ingest.rows import Rejected, Row


class SnapshotWriter:
    """Writes one line for each row, or for each that could not be had.

    Args:
        stream: an open file.

    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.rows = 0

    def row(self, value: Json, about: Json | None = None) -> None:
        """Append a row: its columns, and what the example is to say of itself."""
        self._write({"value": value, **({"about": about} if about else {})})

    def rejected(self, reason: str, detail: str = "", content: str = "") -> None:
        """Append a row that cannot be used."""
        self._write({"rejected": [reason, detail, content]})

    def _write(self, line: Json) -> None:
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        self._stream.write(text.encode("utf-8", "surrogatepass") + b"\n")
        self.rows += 1


def read_snapshot(path: AnyFile, source: str, limit: int) -> Iterator[Row | Rejected]:
    """Yield what a `SnapshotWriter` wrote; the row number is the line number."""
    for number, line in enumerate(lines(read_bytes(path), limit), 1):
        if isinstance(line, TooLong):
            yield too_long(source, number, line, limit)
            continue
        value: Json = json.loads(line.decode("utf-8", "surrogatepass"))
        if "rejected" in value:
            yield Rejected(source, number, *value["rejected"])
        else:
            yield Row(source, number, value["value"], value.get("about", {}))


def now() -> str:
    """Return the time in UTC, to the second (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def described(file: str, name: str, note: str, **more: Any) -> Json:  # noqa: ANN401 - any JSON value
    """Return what is kept of a snapshot: its file, its source's name, how it came, when, and what else."""
    return {"file": file, "name": name, "note": note, "time": now(), **more}
