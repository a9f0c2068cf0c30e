"""Rows of CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tanzim.core.errors import DataError
from tanzim.core.records import Json
from tanzim.data.ingest.encoding import GZIP, Content, TooLong, lines, read_bytes
from tanzim.data.ingest.json_rows import too_long, undecodable
from tanzim.data.ingest.names import KNOWN_COLUMNS, normal
from tanzim.data.ingest.remote import AnyFile
from tanzim.data.ingest.rows import Rejected, Row, excerpt

_SAMPLE = 200  # lines that decide on separator, quotes and header
_AT_ONCE = 64_000_000  # bytes of texts of a Parquet file that are taken apart at once


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is written."""

    separator: str
    quoted: bool
    header: bool


def _stray_quotes(cells: list[str]) -> bool:
    """Tell whether any cell has a quotation mark that cannot be CSV's own quoting."""
    for cell in cells:
        whole = len(cell) >= 2 and cell[0] == cell[-1] == '"'
        if '"' in cell and not (whole and '"' not in cell[1:-1].replace('""', "")):
            return True
    return False


def layout_of(content: Content, tabs: bool, header: bool | None) -> Layout:
    """Find separator, quoting and header from the first lines.

    Args:
        content: the file.
        tabs: whether the name says that tabs separate the columns.
        header: what the config says of the header; None looks at the rows.

    """
    text = content.head.decode(content.codec, errors="replace").replace("\r\n", "\n")
    sample = [line for line in text.split("\n")[: _SAMPLE + 1] if line.strip()]
    if len(sample) > 1 and len(text) < len(content.head):
        sample = sample[:_SAMPLE]
    separator = "\t" if tabs else _separator(sample)
    quoted = True
    if separator == "\t":
        cells = [line.split("\t") for line in sample]
        if len({len(row) for row in cells}) == 1:  # every line is a row: no quoted line ends
            quotes = any('"' in cell for row in cells for cell in row)
            quoted = quotes and not any(_stray_quotes(row) for row in cells)
    rows = _parsed(sample, separator, csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    return Layout(separator, quoted, has_header(rows) if header is None else header)


def _dialect(separator: str, quoted: bool) -> Json:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    return {"delimiter": separator, "quoting": quoting, "strict": True}


def _parsed(sample: list[str], separator: str, quoting: Literal[0, 3]) -> list[list[str]]:
    """Return the rows of a sample up to the first that is no CSV; reading will come upon that one again."""
    csv.field_size_limit(1 << 30)
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in csv.reader(sample, delimiter=separator, quoting=quoting):
            rows.append(row)
    return rows


def _separator(sample: list[str]) -> str:
    """Choose the separator that stands in the first line and gives most lines the same width."""
    best, best_score = ",", 0.0
    for separator in ",;\t|":
        widths = [len(row) for row in _parsed(sample, separator, csv.QUOTE_MINIMAL)]
        if widths and widths[0] > 1:
            score = sum(width == widths[0] for width in widths) / len(widths)
            if score > best_score:
                best, best_score = separator, score
    return best


def has_header(rows: list[list[str]]) -> bool:
    """Tell column names from a first row of values."""
    if not rows:
        return False
    first, rest = rows[0], rows[1:]
    named = [cell.strip() for cell in first if cell.strip()]
    if not named or any(re.fullmatch(r"[-+\d.,/: ]+", name) for name in named):
        return False
    if sum(normal(name) in KNOWN_COLUMNS for name in named) * 2 >= len(named):
        return True
    if len({*named}) != len(named) or len(rest) < 2:
        return len({*named}) == len(named) and all(re.fullmatch(r"\w[\w .()-]{0,40}", n) for n in named)
    for index, cell in enumerate(first):
        column = [row[index] for row in rest if index < len(row)]
        if cell in column and len({*column}) < 0.5 * len(column):  # a class, such as ham or spam
            return False
    sizes = [[len(row[index]) for row in rest if index < len(row)] or [0] for index in range(len(first))]
    longest = max(range(len(first)), key=lambda index: statistics.fmean(sizes[index]))
    typical = statistics.median(sizes[longest])
    return all(len(name) <= 40 for name in named) and len(first[longest]) <= 0.5 * typical


def read_table(content: Content, source: str, layout: Layout, limit: int) -> Iterator[Row | Rejected]:
    """Yield the rows of a CSV or TSV file; the row number leaves the header and blank lines out."""
    number = 0
    faults: list[Rejected] = []

    def text_lines() -> Iterator[str]:
        for line in lines(content.chunks, limit):
            if isinstance(line, TooLong):
                faults.append(too_long(source, 0, line, limit))
                continue
            try:
                yield line.decode(content.codec) + "\n"
            except UnicodeDecodeError as error:
                faults.append(undecodable(source, 0, line, error))

    csv.field_size_limit(limit)
    reader = csv.reader(text_lines(), **_dialect(layout.separator, layout.quoted))
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        cells: list[str] | None = []
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # A quotation mark left open takes the lines after it along: each of them is lost, and counted.
            detail = f"{error}: a quotation mark in line {line} goes wrong by line {reader.line_num}"
            fault = Rejected(source, 0, "the row is not valid CSV", detail)
            faults += [fault] * (reader.line_num - line + 1)
        for one in faults:
            number += 1
            yield Rejected(source, number, one.reason, one.detail, one.content)
        faults.clear()
        if cells is None:
            return
        if not cells:  # a blank line, or a fault
            continue
        if columns is None:
            columns = column_names(cells, layout.header, f"{source}, header")
            if layout.header:
                continue
        number += 1
        yield _row(source, number, columns, cells)


def column_names(cells: list[str], header: bool, where: str) -> list[str]:
    """Return the names of the columns: the first row's cells, or column_1 and so on.

    Raises:
        DataError: a name stands twice.

    """
    if not header:
        return [f"column_{index}" for index in range(1, len(cells) + 1)]
    names = [cell.strip() or f"column_{index}" for index, cell in enumerate(cells, 1)]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(
            f"the column name '{min(twice)}' stands twice in the header",
            where=where,
            fix="give each column its own name (or set data.header: false)",
        )
    return names


def _row(source: str, number: int, columns: list[str], cells: list[str]) -> Row | Rejected:
    extra = cells[len(columns) :]
    if len(cells) < len(columns) or any(extra):
        detail = f"{len(cells)} columns instead of {len(columns)}"
        return Rejected(source, number, "the row has another number of columns", detail, excerpt(cells))
    return Row(source, number, dict(zip(columns, cells[: len(columns)], strict=True)))


def read_parquet(
    path: AnyFile, source: str, groups: Sequence[int] | None = None, before: int = 0
) -> Iterator[Row | Rejected]:
    """Yield the rows of a Parquet file, gzipped or not, a thousand at a time.

    Args:
        path: the file.
        source: the name that the rows are given.
        groups: the row groups that are read; None for all.
        before: rows that stand before the first of them.

    Raises:
        DataError: the file is not Parquet, damaged, or ends early.

    """
    number = before
    try:
        with _seekable(path) as stream, pq.ParquetFile(stream) as whole:
            file = pq.ParquetFile(stream, metadata=whole.metadata, read_dictionary=_shared_texts(whole))
            for batch in file.iter_batches(batch_size=1000, row_groups=groups):
                for value in (value for part in _parts(batch) for value in part.to_pylist()):
                    number += 1
                    yield Row(source, number, value)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the Parquet file is damaged or cut short ({str(error).splitlines()[0]})",
            where=f"{path}, after row {number}",
            fix="fetch or write the file again",
        ) from None


def _shared_texts(file: pq.ParquetFile) -> list[str]:
    """Return the columns of texts that are written once and pointed to, so that few bytes can be many."""
    texts = {field.name for field in file.schema_arrow if _is_text(field.type)}
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sorted({one.path_in_schema for one in columns if one.has_dictionary_page} & texts)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_binary(value))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch where its texts, each written out, become too many bytes for one."""
    sizes = np.zeros(batch.num_rows, np.int64)
    shared = [pa.types.is_dictionary(column.type) and _is_text(column.type) for column in batch.columns]
    for column in (column for column, points in zip(batch.columns, shared, strict=True) if points):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        sizes += pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _AT_ONCE)) + 1
    for start, end in zip([0, *ends.tolist()], [*ends.tolist(), batch.num_rows], strict=True):
        part = batch.slice(start, end - start)
        columns = zip(part.columns, shared, strict=True)
        yield pa.RecordBatch.from_arrays(
            [column.dictionary_decode() if points else column for column, points in columns],
            part.schema.names,
        )


def parquet_rows(path: AnyFile) -> int:
    """Return the number of rows that a Parquet file says it has."""
    with _seekable(path) as stream, pq.ParquetFile(stream) as file:
        return int(file.metadata.num_rows)


def _seekable(path: AnyFile) -> IO[bytes]:
    """Open a file that is read back and forth, which a gzip stream or a web address cannot."""
    stream = path.open("rb")
    if stream.seekable() and stream.peek(2)[:2] != GZIP:
        return stream
    stream.close()
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    for chunk in read_bytes(path):
        copy.write(chunk)
    copy.seek(0)
    return copy
