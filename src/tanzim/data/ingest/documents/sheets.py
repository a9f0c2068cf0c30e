"""Rows of a workbook (Office Open XML spreadsheets) through openpyxl, which streams them."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tanzim.core.errors import ConfigError
from tanzim.core.optional import need
from tanzim.data.ingest.documents.archive import open_archive
from tanzim.data.ingest.documents.blocks import Cells

_COLUMNS = 16_384  # of a sheet, at the most (Excel's own limit)


def read_sheets(path: Path, limit: int, wanted: list[str]) -> Iterator[Cells]:
    """Yield the rows of a workbook that hold anything, sheet by sheet; formulas as they were last computed.

    Args:
        path: an ``.xlsx`` or ``.xlsm`` file; macros are not run.
        limit: the most bytes that it may have once unpacked.
        wanted: names of the sheets to read; empty for all.

    Raises:
        ConfigError: there is no sheet of that name.
        DataError: it is damaged, protected, too large once unpacked, or made to do harm.

    """
    openpyxl = need("openpyxl", "documents")
    with open_archive(path, limit):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that are of no account here
        with path.open("rb") as stream:  # openpyxl goes by a name's suffix, and a copy has none
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
            try:
                yield from _rows(book, wanted)
            finally:
                book.close()


def _rows(book: Any, wanted: list[str]) -> Iterator[Cells]:  # noqa: ANN401 - an openpyxl workbook
    names = [sheet.title for sheet in book.worksheets]
    if missing := [name for name in wanted if name not in names]:
        raise ConfigError(
            f"there is no sheet '{missing[0]}'; there are: {', '.join(names)}", where="data.sheets"
        )
    for sheet in book.worksheets:
        if wanted and sheet.title not in wanted:
            continue
        sheet.reset_dimensions()  # what a file says of its size need not be so
        for row in sheet.iter_rows(values_only=True):
            values = [_plain(value) for value in row[:_COLUMNS]]
            while values and values[-1] is None:
                values.pop()
            if values:
                yield Cells(sheet.title, values)


def _plain(value: Any) -> str | int | float | bool | None:  # noqa: ANN401 - any cell
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float):
        return None if value == "" else value
    return str(value)
