"""Word and Excel files are ZIP archives of XML: opened so that neither can do harm.

Nothing is ever written to disk, so a name such as ``../../etc/passwd`` in an archive leads nowhere. An
archive says how large each part is; `zipfile` reads no more than that and checks the sum, so that
adding up the sizes before reading bounds the memory. A document type (the door of entity bombs and of
external entities) has no place in an Office file (ECMA-376 part 2, 8.2.4): one that has it is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal
from xml.parsers import expat

from tanzim.core.errors import DataError

_PARTS = 20_000  # of an archive: more is no document
_CHUNK = 1 << 16


def holds(path: Path) -> Literal["docx", "xlsx"] | None:
    """Return "docx" or "xlsx" if a file is an Office archive of that kind, else None."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.lower() for name in archive.namelist()[:_PARTS]}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return None
    if any(name.startswith("word/document") for name in names):
        return "docx"
    return "xlsx" if any(name.startswith("xl/workbook") for name in names) else None


@contextmanager
def open_archive(path: Path, limit: int) -> Iterator[zipfile.ZipFile]:
    """Open an Office file after a look at what is in it.

    Args:
        path: the file.
        limit: the most bytes that all its parts may have once unpacked.

    Raises:
        DataError: it is damaged, encrypted, too large once unpacked, or brings a document type.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, limit)
            for info in archive.infolist():
                if info.filename.lower().endswith((".xml", ".rels")):
                    with archive.open(info) as part:
                        _check_xml(part, info.filename)
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise DataError(f"the archive is damaged ({error})", fix="fetch or save the file again") from None
    except RuntimeError as error:
        if "password" not in str(error):
            raise
        raise DataError(
            "the archive is protected by a password", fix="save it without the password"
        ) from None


def _check_sizes(archive: zipfile.ZipFile, limit: int) -> None:
    infos = archive.infolist()
    if len(infos) > _PARTS:
        raise DataError(f"the archive has {len(infos):,} parts", fix="save the document again")
    names = [info.filename for info in infos]
    if len({*names}) != len(names):
        raise DataError("the archive holds two parts of one name", fix="save the document again")
    size = sum(info.file_size for info in infos)
    if size > limit:
        raise DataError(
            f"the document has {size / 1e6:,.0f} MB once unpacked, data.max_document_mb is {limit / 1e6:g}",
            fix="raise data.max_document_mb if it is to be trusted",
        )


def _check_xml(part: IO[bytes], name: str) -> None:
    """Read a part once, keeping nothing, and stop at a document type."""

    def refuse(*_: object) -> None:
        raise DataError(
            f"a part of the document ({name}) declares a document type, as entity bombs and external "
            "entities do",
            fix="save the document again in Word, Excel or LibreOffice",
        )

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        while chunk := part.read(_CHUNK):
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DataError(
            f"a part of the document ({name}) is not valid XML ({error})", fix="fetch or save the file again"
        ) from None
