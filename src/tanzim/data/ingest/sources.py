"""From what ``data.path`` says to a list of files, each with the way it is read."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tanzim.core.errors import DataError
from tanzim.core.files import sha256
from tanzim.core.records import Json
from tanzim.data.config import DataConfig
from tanzim.data.ingest.documents.parts import NAMES, SUFFIXES, Kind
from tanzim.data.ingest.documents.read import document_kind, read_document
from tanzim.data.ingest.encoding import Content, open_content, read_bytes
from tanzim.data.ingest.guard import Guard
from tanzim.data.ingest.hub import PREFIX, read_hub
from tanzim.data.ingest.json_rows import is_lines, read_json, read_json_lines
from tanzim.data.ingest.plain import one_per_line, read_lines, read_whole
from tanzim.data.ingest.remote import AnyFile, RemoteFile, find_remote, is_remote
from tanzim.data.ingest.rows import Rejected, Row
from tanzim.data.ingest.snapshot import read_snapshot
from tanzim.data.ingest.tables import layout_of, read_parquet, read_table

Container = Literal["jsonl", "json", "csv", "tsv", "parquet", "text", "hub", "fetched", Kind]

_SUFFIXES: dict[str, Container] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".parquet": "parquet", ".pq": "parquet", ".txt": "text", ".text": "text", **SUFFIXES,
}  # fmt: skip
_ABOUT = ("readme", "license", "licence", "copying", "changelog", "notice", "citation")
KINDS = "JSONL, JSON, CSV, TSV, Parquet, plain text, PDF, DOCX, XLSX, HTML or Markdown, each also gzipped"


@dataclass(frozen=True, slots=True)
class Source:
    """One file (or hub dataset) to read.

    Args:
        name: how messages and provenance call it.
        path: the file; None for a hub dataset.
        fetched: of what was fetched into that file: when, from where, how much; None of other files.

    """

    name: str
    path: AnyFile | None
    fetched: Json | None = None

    @property
    def fingerprint(self) -> str | None:
        """What changes with its content; None where nothing is known of it."""
        if self.path is None:
            return None
        return sha256(self.path) if isinstance(self.path, Path) else self.path.fingerprint


@dataclass(frozen=True, slots=True)
class Found:
    """The files behind a path, and those of a folder that were left aside."""

    sources: list[Source]
    skipped: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Meter:
    """How many rows came out of how many bytes, at the moment the last chunk was asked for."""

    rows: int = 0
    size: int = 0
    rows_before: int = 0
    size_before: int = 0

    def chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass chunks through and count their bytes."""
        for chunk in chunks:
            self.rows_before, self.size_before = self.rows, self.size
            self.size += len(chunk)
            yield chunk

    def counted(self, rows: Iterator[Row | Rejected]) -> Iterator[Row | Rejected]:
        """Pass rows through and count them."""
        for row in rows:
            self.rows += 1
            yield row


@dataclass(frozen=True, slots=True)
class Opened:
    """A source ready to be read: how it is written, and its rows."""

    container: Container
    encoding: str
    note: str
    rows: Iterator[Row | Rejected]
    meter: Meter = field(default_factory=Meter)


def find(paths: str | list[str], out: Path | None = None, allow: Sequence[str] = ()) -> Found:
    """Expand files, folders, globs, URLs and hub ids, in the order given (names sorted within a folder).

    Args:
        paths: what ``data.path`` says.
        out: a folder that is written to, and never read from.
        allow: hosts that may be asked although they are not public (``data.allow_hosts``).

    Raises:
        DataError: there is no such file, or a folder or glob holds nothing that can be read.

    """
    wanted = [paths] if isinstance(paths, str) else paths
    if not wanted:
        raise DataError("no data is named", where="data.path", fix="set data.path to a file, folder or glob")
    sources: list[Source] = []
    skipped: list[str] = []
    for name in wanted:
        if name.startswith(PREFIX):
            sources.append(Source(name, None))
            continue
        path = Path(name.removeprefix("file://")).expanduser()
        if is_remote(name) and not name.startswith("file://"):
            inside = _elsewhere(name, Guard(tuple(allow)))
        elif path.is_dir():
            inside = _in_folder(path, out)
        elif path.exists():
            inside = Found([Source(str(path), path)])
        else:
            inside = _in_glob(name)
        sources += inside.sources
        skipped += inside.skipped
    unique = {source.name: source for source in sources}
    return Found(list(unique.values()), skipped)


def _in_folder(folder: Path, out: Path | None) -> Found:
    ours = out.resolve() if out else None
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files = [p for p in files if ours is None or not p.resolve().is_relative_to(ours)]
    found = _sift([p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)])
    if not found.sources:
        raise DataError(
            f"the folder holds no file that can be read ({len(files)} files in all)",
            where=str(folder),
            fix=f"put {KINDS} into it",
        )
    return found


def _in_glob(pattern: str) -> Found:
    files = sorted(Path(p) for p in glob.glob(str(Path(pattern).expanduser()), recursive=True))
    files = [p for p in files if p.is_file()]
    if not files:
        is_pattern = glob.has_magic(pattern)
        raise DataError(
            "the pattern matches no file" if is_pattern else "there is no such file or folder",
            where=pattern,
            fix="check the path; relative ones start at the folder you run tanzim in",
        )
    found = _sift(files)
    return found if found.sources else Found([Source(str(p), p) for p in files])


def _elsewhere(url: str, guard: Guard) -> Found:
    files = find_remote(url, guard)
    found = _sift(files)
    if not files or (not found.sources and len(files) > 1):
        raise DataError(
            f"the URL leads to no file that can be read ({len(files)} files in all)",
            where=url,
            fix=f"put {KINDS} there",
        )
    return found if found.sources else Found([Source(str(file), file) for file in files])


def _sift(files: Sequence[AnyFile]) -> Found:
    """Part the files whose names say that they hold data from the others."""
    data = [p for p in files if _suffix(p) in _SUFFIXES and not p.name.lower().startswith(_ABOUT)]
    rest = [str(p) for p in files if p not in set(data)]
    return Found([Source(str(p), p) for p in data], rest)


def _suffix(path: AnyFile) -> str:
    name = path.name.lower()
    return Path(name.removesuffix(".gz").removesuffix(".gzip")).suffix


def _container(path: AnyFile, content: Content) -> Container:
    """Choose how to read a text file: JSON shows by its content, tables by their name."""
    named = _SUFFIXES.get(_suffix(path))
    start = content.head.decode(content.codec, errors="replace").lstrip()[:1]
    if named in ("csv", "tsv", "text"):
        return named
    if named in ("json", "jsonl") or start in ("{", "["):
        if start not in ("{", "["):
            if named == "jsonl":
                return "jsonl"
            raise DataError(
                f"this is not JSON: it starts with {start!r}", where=str(path), fix="rename it to what it is"
            )
        return "jsonl" if is_lines(path.name, content.head, content.codec) else "json"
    first = content.head.decode(content.codec, errors="replace").splitlines()[:20]
    return "tsv" if first and all("\t" in line for line in first if line.strip()) else "text"


def open_source(source: Source, config: DataConfig) -> Opened:
    """Find out how a source is written, and return its rows as a stream.

    Raises:
        DataError: the file is missing, empty, binary, damaged, or in an unnamed encoding.

    """
    path = source.path
    if path is None:
        return Opened("hub", "utf-8", "a Hugging Face dataset", read_hub(source.name))
    if isinstance(path, Path) and not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="check data.path")
    limit = int(config.max_line_mb * 1e6)
    if source.fetched is not None:
        return Opened("fetched", "utf-8", source.fetched["note"], read_snapshot(path, source.name, limit))
    head = next(read_bytes(path), b"")
    if head.startswith(b"PAR1") or _suffix(path) in (".parquet", ".pq"):
        return Opened("parquet", "utf-8", "Parquet", read_parquet(path, source.name))
    if kind := document_kind(path, _suffix(path), head):
        meter = Meter()
        rows = meter.counted(read_document(path, source.name, kind, config))
        return Opened(kind, config.encoding, NAMES[kind], rows, meter)
    content = open_content(path, config.encoding)
    meter = Meter()
    content = replace(content, chunks=meter.chunks(content.chunks))
    container = _container(path, content)
    if container == "jsonl":
        note, rows = "JSON Lines", read_json_lines(content, source.name, limit)
    elif container == "json":
        note, rows = "JSON", read_json(content, source.name, path, limit)
    elif container == "text":
        per_line, note = one_per_line(content, path.stat().st_size, limit, config.documents)
        rows = (
            read_lines(content, source.name, limit)
            if per_line
            else read_whole(content, source.name, path, limit)
        )
    else:
        layout = layout_of(content, container == "tsv", config.header)
        header = "a header" if layout.header else "no header"
        quotes = "" if layout.quoted else ", quotation marks literal"
        note = f"columns separated by {layout.separator!r}, {header}{quotes}"
        rows = read_table(content, source.name, layout, limit)
    if content.detected:
        note += f"; its encoding ({content.encoding}) was told from its bytes"
    return Opened(container, content.encoding, note, meter.counted(rows), meter)


def describe(source: Source, opened: Opened) -> Json:
    """Return what a report says of a source."""
    size = source.path.stat().st_size if source.path else None
    known: Json = {} if source.fetched is None else {"fetched": source.fetched}
    if isinstance(source.path, RemoteFile):
        known = {"version": source.path.version}
    return {
        "path": source.name,
        "bytes": size,
        **known,
        "container": opened.container,
        "encoding": opened.encoding,
        "note": opened.note,
    }
