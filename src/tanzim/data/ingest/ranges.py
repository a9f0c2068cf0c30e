"""One large file in stretches that are read side by side, with the rows and numbers of reading it in one go.

A stretch of lines or of CSV ends where a row ends, one of Parquet where a row group does. How a file is
divided hangs on the file alone, never on the machine.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow.parquet as pq

from tanzim.core.records import Progress
from tanzim.data.config import DataConfig
from tanzim.data.executor import Executor
from tanzim.data.ingest.encoding import CHUNK, Content, is_gzip, open_content
from tanzim.data.ingest.json_rows import read_json_lines
from tanzim.data.ingest.plain import one_per_line, read_lines
from tanzim.data.ingest.read import Ingest
from tanzim.data.ingest.rows import Rejected, Row
from tanzim.data.ingest.sources import Container, Source
from tanzim.data.ingest.tables import Layout, layout_of, read_parquet, read_table

SIZE = 32 << 20  # bytes of a stretch, about
_COUNTED = "counting rows"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a file that can be read on its own.

    Args:
        path: the file.
        container: how it is written.
        start: first byte, or row group.
        stop: where the next stretch starts.
        before: rows before it (lines, where lines are counted).
        layout: of a table: with the header that ``header`` stands for.
        header: of a table: a line that gives the columns their names; none at the file's own beginning.

    """

    path: Path
    container: Container
    start: int
    stop: int
    before: int = 0
    layout: Layout | None = None
    header: bytes = b""


def divide_file(
    source: Source, one: Ingest, config: DataConfig, executor: Executor, progress: Progress, size: int
) -> list[Stretch]:
    """Divide a source; an empty list says that it is to be read in one go.

    Args:
        source: a file.
        one: the same, opened and recognised.
        config: how it is read.
        executor: where rows are counted.
        progress: told what has been counted.
        size: bytes of a stretch, about.

    """
    path, container = source.path, one.opened.container
    if not isinstance(path, Path) or source.fetched is not None or one.detection is None or is_gzip(path):
        return []
    if container == "parquet":
        return _row_groups(path, size)
    content = open_content(path, config.encoding)
    # Turned from UTF-16 it would be cut within characters.
    if content.codec == content.encoding and container in ("jsonl", "text", "csv", "tsv"):
        if container in ("csv", "tsv"):
            layout = layout_of(content, container == "tsv", config.header)
            return _table(path, container, layout, one, config, executor, progress, size)
        limit = int(config.max_line_mb * 1e6)
        if container == "jsonl" or one_per_line(content, path.stat().st_size, limit, config.documents)[0]:
            cuts = _cuts(path, size, executor, progress)
            return [Stretch(path, container, at, end, lines) for (at, lines, _), (end, *_) in pairwise(cuts)]
    return []


def read_stretch(stretch: Stretch, source: str, config: DataConfig) -> Iterator[Row | Rejected]:
    """Yield the rows of a stretch, numbered as they are in the whole file."""
    if stretch.container == "parquet":
        return read_parquet(stretch.path, source, range(stretch.start, stretch.stop), stretch.before)
    return (replace(row, row=row.row + stretch.before) for row in _text(stretch, source, config))


def _text(stretch: Stretch, source: str, config: DataConfig) -> Iterator[Row | Rejected]:
    limit = int(config.max_line_mb * 1e6)
    codec = open_content(stretch.path, config.encoding).codec
    content = Content(codec, codec, b"", _chunks(stretch))
    if stretch.container == "jsonl":
        return read_json_lines(content, source, limit)
    if stretch.layout is not None:
        return read_table(content, source, stretch.layout, limit)
    return read_lines(content, source, limit)


def _chunks(stretch: Stretch) -> Iterator[bytes]:
    if stretch.header:
        yield stretch.header
    with stretch.path.open("rb") as file:
        file.seek(stretch.start)
        left = stretch.stop - stretch.start
        while left and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _row_groups(path: Path, size: int) -> list[Stretch]:
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        rows = [0, *accumulate(group.num_rows for group in groups)]
        sizes = [group.total_byte_size for group in groups]
    starts, held = [0], 0
    for number, bytes_ in enumerate(sizes):
        if held >= size:
            starts.append(number)
            held = 0
        held += bytes_
    if len(starts) < 2:
        return []
    return [Stretch(path, "parquet", a, b, rows[a]) for a, b in pairwise([*starts, len(groups)])]


Cut = tuple[int, int, int]  # where a stretch starts, lines and quotation marks before it


def _cuts(path: Path, size: int, executor: Executor, progress: Progress, quoted: bool = False) -> list[Cut]:
    """Return where stretches start, the first of them and the end of the file included.

    Args:
        path: the file.
        size: bytes of a stretch, about.
        executor: where lines are counted.
        progress: told the bytes looked at.
        quoted: cut only where an even number of quotation marks stands before.

    """
    end = path.stat().st_size
    raw = [Stretch(path, "text", at, min(at + size, end)) for at in range(0, end, size)]
    counts = [(0, 0)] * len(raw)
    with closing(executor.map(_count, raw)) as results:
        for done, (number, count) in enumerate(results, 1):
            counts[number] = count
            progress(raw[done - 1].stop, end, _COUNTED)
    lines = [0, *accumulate(count[0] for count in counts)]
    quotes = [0, *accumulate(count[1] for count in counts)]
    with path.open("rb") as file:
        start = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        found: list[Cut] = [(start, 0, 0)]
        for part, passed, marks in zip(raw[1:], lines[1:], quotes[1:], strict=False):
            file.seek(part.start - 1)
            cut = _next_row(file, part.start - 1, passed - (file.read(1) == b"\n"), marks, quoted)
            if cut is not None and cut[0] > found[-1][0] and cut[0] < end:
                found.append(cut)
    return [*found, (end, lines[-1], quotes[-1])]


def _count(part: Stretch) -> tuple[int, int]:
    """Return the line feeds and quotation marks of a part of a file."""
    lines = quotes = 0
    for chunk in _chunks(part):
        lines += chunk.count(b"\n")
        quotes += chunk.count(b'"')
    return lines, quotes


def _next_row(file: io.BufferedReader, at: int, lines: int, quotes: int, quoted: bool) -> Cut | None:
    """Return the first start of a row after byte ``at``, before which so many lines and marks stand."""
    file.seek(at)
    marks = file.read(1).count(b'"')
    file.seek(at)
    quotes -= marks
    while line := file.readline(CHUNK):
        at += len(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n"):
            lines += 1
            if not quoted or quotes % 2 == 0:
                return at, lines, quotes
    return None


def _table(
    path: Path,
    container: Container,
    layout: Layout,
    one: Ingest,
    config: DataConfig,
    executor: Executor,
    progress: Progress,
    size: int,
) -> list[Stretch]:
    """Divide a table, unless its quotation marks are such that rows end elsewhere than it seems.

    Each stretch is parsed once to count its rows: where it starts at the start of a row, and is parsed to its
    end without a fault, the next one starts at the start of a row, too.
    """
    names = next(list(row.value) for row in one.head if isinstance(row, Row))
    cuts = _cuts(path, size, executor, progress, layout.quoted)
    header = _header(names, layout).encode(one.opened.encoding)
    named = replace(layout, header=True)
    stretches = [
        Stretch(path, container, start, stop, 0, named if number else layout, header if number else b"")
        for number, ((start, *_), (stop, *_)) in enumerate(pairwise(cuts))
    ]
    rows = [0] * len(stretches)
    tasks = [(stretch, config) for stretch in stretches]
    with closing(executor.map(_rows, tasks)) as results:
        for done, (number, count) in enumerate(results, 1):
            if count is None:
                return []
            rows[number] = count
            progress(done, len(stretches), _COUNTED)
    before = accumulate(rows, initial=0)
    return [replace(stretch, before=count) for stretch, count in zip(stretches, before, strict=False)]


def _header(names: list[str], layout: Layout) -> str:
    if not layout.quoted:
        return layout.separator.join(names) + "\n"
    line = io.StringIO()
    csv.writer(line, delimiter=layout.separator, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(names)
    return line.getvalue()


def _rows(task: tuple[Stretch, DataConfig]) -> int | None:
    """Count the rows of a stretch of a table; None if any is not valid CSV."""
    count = 0
    for row in _text(task[0], "", task[1]):
        if isinstance(row, Rejected) and row.reason == "the row is not valid CSV":
            return None
        count += 1
    return count
