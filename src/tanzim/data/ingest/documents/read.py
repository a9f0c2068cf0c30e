"""Rows of documents: each heading's section, page or chunk a row with where it stands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice
from pathlib import Path

from tanzim.core.errors import DataError
from tanzim.data.config import DataConfig
from tanzim.data.ingest.documents.blocks import Block, Cells, Fault, Part
from tanzim.data.ingest.documents.chunks import pieces
from tanzim.data.ingest.documents.contained import contained
from tanzim.data.ingest.documents.parts import Kind, Options, kind_of
from tanzim.data.ingest.encoding import is_gzip, read_bytes
from tanzim.data.ingest.remote import AnyFile
from tanzim.data.ingest.rows import Rejected, Row, excerpt
from tanzim.data.ingest.tables import column_names, has_header

_SAMPLE = 200  # rows of a sheet that decide whether the first is a header


def options_of(config: DataConfig) -> Options:
    """Return how documents are to be read."""
    limit = int(config.max_document_mb * 1e6)
    return Options(limit, config.encoding, config.html == "main", tuple(config.sheets))


def document_kind(path: AnyFile, suffix: str, head: bytes) -> Kind | None:
    """Tell which kind of document a file is; None if it is none.

    Args:
        path: the file, gzipped or not.
        suffix: of its name, in lower case.
        head: its first bytes, unzipped.

    """
    here = path if isinstance(path, Path) and not is_gzip(path) else None
    return kind_of(head, suffix, here)


@contextmanager
def _at_hand(path: AnyFile, limit: int) -> Iterator[Path]:
    """Give a document that is gzipped or elsewhere as a temporary file, a local one as it is."""
    if isinstance(path, Path) and not is_gzip(path):
        yield path
        return
    with tempfile.NamedTemporaryFile() as copy:
        size = 0
        for chunk in read_bytes(path):
            size += len(chunk)
            if size > limit:
                raise DataError(
                    f"the document has more than {limit / 1e6:g} MB (data.max_document_mb) once unpacked",
                    fix="raise data.max_document_mb if it is to be trusted",
                )
            copy.write(chunk)
        copy.flush()
        yield Path(copy.name)


def read_document(path: AnyFile, source: str, kind: Kind, config: DataConfig) -> Iterator[Row | Rejected]:
    """Yield the rows of a document: a piece of its text each, or the rows of its sheets.

    A document that cannot be read is one rejected row that says why: among many, it stops nothing.

    Args:
        path: the file.
        source: how it is called in provenance.
        kind: what it is.
        config: how documents are read and cut.

    """
    number = 0
    options = options_of(config)
    try:
        with _at_hand(path, options.limit) as plain:
            parts = contained(plain, kind, options, config.max_document_seconds)
            rows = _tables(parts, source, config) if kind == "xlsx" else _texts(parts, source, config)
            for row in rows:
                number = row.row
                yield row
    except DataError as error:
        yield Rejected(source, number + 1, error.what, error.fix or "", excerpt(path.name))


def _texts(parts: Iterator[Part], source: str, config: DataConfig) -> Iterator[Row | Rejected]:
    blocks = (part for part in parts if isinstance(part, Block | Fault))
    number = 0
    for number, piece in enumerate(pieces(blocks, config.chunks), 1):
        if isinstance(piece, Fault):
            yield Rejected(source, number, piece.reason, piece.detail)
        else:
            yield Row(source, number, {"text": piece.text}, piece.about)
    if not number:
        yield Rejected(source, 1, "the document has no text")


def _tables(parts: Iterator[Part], source: str, config: DataConfig) -> Iterator[Row | Rejected]:
    """Yield the rows of all sheets; those of a sheet with other columns than the first are rejected.

    Rows are numbered below the header, blank ones too, and on through all sheets.
    """
    number = 0
    columns: list[str] = []
    cells = (part for part in parts if isinstance(part, Cells))
    for sheet, rows in groupby(cells, lambda row: row.sheet):
        sample = list(islice(rows, _SAMPLE))
        texts = [["" if value is None else str(value) for value in row.values] for row in sample]
        header = has_header(texts) if config.header is None else config.header
        names = column_names(texts[0], header, f"{source}, sheet '{sheet}'")
        columns = columns or names
        before = number - sample[0].row + (not header)
        for row in chain(sample[header:], rows):
            number = before + row.row
            fault = _misfit(names, columns, row)
            if fault:
                yield Rejected(source, number, *fault, excerpt(row.values))
            else:
                padded = [*row.values, *[None] * (len(names) - len(row.values))]
                yield Row(source, number, dict(zip(names, padded, strict=True)), {"sheet": sheet})
    if not number:
        yield Rejected(source, 1, "the workbook has no rows")


def _misfit(names: list[str], columns: list[str], row: Cells) -> tuple[str, str] | None:
    """Say why a row does not belong to the table, if it does not."""
    if {*names} != {*columns}:
        return "the sheet has other columns than the first", f"sheet '{row.sheet}': {', '.join(names)}"[:200]
    if len(row.values) > len(names):
        detail = f"{len(row.values)} columns instead of {len(names)} in sheet '{row.sheet}'"
        return "the row has another number of columns", detail
    if row.uncomputed:
        detail = f"cell {row.uncomputed} of sheet '{row.sheet}': save the workbook in Excel or LibreOffice"
        return "a formula was never computed", detail
    return None
