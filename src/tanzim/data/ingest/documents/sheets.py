"""Rows of a workbook (Office Open XML spreadsheets) through openpyxl, which streams them."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.data.ingest.documents.archive import open_archive
from tanzim.data.ingest.documents.blocks import Cells

_COLUMNS = 16_384  # of a sheet, at the most (Excel's own limit)
_FORMULA = re.compile(rb"<(?:\w+:)?f[\s/>]")
_CHUNK, _TAG = 1 << 16, 64  # bytes looked at together; the longest opening of a formula's element


def read_sheets(path: Path, limit: int, wanted: list[str]) -> Iterator[Cells]:
    """Yield the rows of a workbook that hold anything, sheet by sheet; formulas as they were last computed.

    A program that writes a workbook without computing it leaves formulas without a value (and takes any text
    that begins with "=" for one): such rows say so.

    Args:
        path: an ``.xlsx`` or ``.xlsm`` file; macros are not run.
        limit: the most bytes that it may have once unpacked.
        wanted: names of the sheets to read; empty for all.

    Raises:
        ConfigError: there is no sheet of that name.
        DataError: it is damaged, protected, too large once unpacked, or made to do harm.

    """
    openpyxl = need("openpyxl", "documents")
    with open_archive(path, limit) as archive:
        formulas = _has_formulas(archive)
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # of styles and extensions that are of no account here
        books = []
        for computed in (True, False) if formulas else (True,):
            stream = stack.enter_context(path.open("rb"))  # openpyxl goes by a name's suffix; a copy has none
            book = openpyxl.load_workbook(stream, read_only=True, data_only=computed, keep_links=False)
            books.append(stack.enter_context(closing(book)))
        yield from _rows(books, wanted)


def _has_formulas(archive: ZipFile) -> bool:
    for name in archive.namelist():
        if name.lower().startswith("xl/worksheets/"):
            with archive.open(name) as part:
                held = b""
                while chunk := part.read(_CHUNK):
                    if _FORMULA.search(held + chunk):
                        return True
                    held = chunk[-_TAG:]
    return False


def _rows(books: Sequence[Any], wanted: list[str]) -> Iterator[Cells]:
    """Yield the rows of a workbook: with its values and, where it has formulas, once more with those."""
    names = [sheet.title for sheet in books[0].worksheets]
    if missing := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"there is no sheet '{missing[0]}'; there are: {', '.join(names)}", where="data.sheets"
        )
    for sheets in zip(*(book.worksheets for book in books), strict=True):
        title = sheets[0].title
        if wanted and title not in wanted:
            continue
        for sheet in sheets:
            sheet.reset_dimensions()  # what a file says of its size need not be so
        rows = (
            _whole(*sheets)
            if len(sheets) > 1
            else ((row, "") for row in sheets[0].iter_rows(values_only=True))
        )
        for number, (row, uncomputed) in enumerate(rows, 1):
            values = [_plain(value) for value in row[:_COLUMNS]]
            while values and values[-1] is None:
                values.pop()
            if values:
                yield Cells(title, values, number, uncomputed)


def _whole(computed: Any, written: Any) -> Iterator[tuple[list[Any], str]]:  # noqa: ANN401 - openpyxl sheets
    """Yield each row of a sheet with formulas that were never computed in place, and the first one's name."""
    for cells, formulas in zip(computed.iter_rows(), written.iter_rows(values_only=True), strict=True):
        values, first = [], ""
        for cell, formula in zip(cells, formulas, strict=True):
            value = cell.value
            # A formula that came to an empty text has no value either, but says that it is text.
            if value is None and formula is not None and cell.data_type != "str":
                value, first = _said(formula), first or cell.coordinate
            values.append(value)
        yield values, first


def _said(formula: Any) -> str:  # noqa: ANN401 - a text, or openpyxl's object for a formula of many cells
    text = formula if isinstance(formula, str) else getattr(formula, "text", None)
    return text or "="


def _plain(value: Any) -> str | int | float | bool | None:  # noqa: ANN401 - any cell
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float):
        return None if value == "" else value
    return str(value)
