"""One way into all readers of documents: whatever is wrong with the file becomes one clear error."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tanzim.core.errors import DataError, TanzimError
from tanzim.data.ingest.documents.archive import holds
from tanzim.data.ingest.documents.blocks import PARSER_FAULTS, Part, first_line
from tanzim.data.ingest.documents.html import read_html
from tanzim.data.ingest.documents.markdown import read_markdown
from tanzim.data.ingest.documents.pdf import read_pdf
from tanzim.data.ingest.documents.sheets import read_sheets
from tanzim.data.ingest.documents.word import read_word
from tanzim.data.ingest.encoding import open_content, read_bytes

Kind = Literal["pdf", "docx", "xlsx", "html", "markdown"]
NAMES: dict[Kind, str] = {
    "pdf": "PDF", "docx": "Word document", "xlsx": "workbook", "html": "HTML page",
    "markdown": "Markdown file",
}  # fmt: skip
SUFFIXES: dict[str, Kind] = {
    ".pdf": "pdf", ".docx": "docx", ".docm": "docx", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".md": "markdown", ".markdown": "markdown",
}  # fmt: skip
_PAGE = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.IGNORECASE)
# What pages that say Latin-1 are in (WHATWG encoding standard).
_WEB = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "gb2312": "gb18030",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How documents are read.

    Args:
        limit: the most bytes of a document once unpacked.
        encoding: of HTML and Markdown, as ``data.encoding`` has it.
        main: of HTML the main text alone.
        sheets: names of the sheets that are read; empty for all.

    """

    limit: int = 200_000_000
    encoding: str = "auto"
    main: bool = True
    sheets: tuple[str, ...] = field(default=())


def kind_of(head: bytes, suffix: str, path: Path | None) -> Kind | None:
    """Tell which kind of document a file is, by its first bytes, else by its name; None if it is none.

    Args:
        head: the first bytes.
        suffix: of its name, in lower case.
        path: the file, to look into an archive; None if it is not at hand.

    """
    if head[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if head.startswith(b"PK\x03\x04") and path is not None:
        return holds(path) or SUFFIXES.get(suffix)
    return "html" if _PAGE.match(head[:1024]) else SUFFIXES.get(suffix)


def read_parts(path: Path, kind: Kind, options: Options) -> Iterator[Part]:
    """Yield the headings, paragraphs or rows of a document, and faults of its parts.

    Args:
        path: the file, not gzipped.
        kind: what it is.
        options: how it is read.

    Raises:
        DataError: it cannot be read: protected, damaged, too large, without text, or made to do harm.
        MissingExtra: the package that reads it is not installed.

    """
    size = path.stat().st_size
    if size > options.limit:
        raise DataError(
            f"the document has {size / 1e6:,.0f} MB, data.max_document_mb is {options.limit / 1e6:g}",
            fix="raise data.max_document_mb",
        )
    readers: dict[Kind, Callable[[], Iterator[Part]]] = {
        "pdf": lambda: read_pdf(path),
        "docx": lambda: read_word(path, options.limit),
        "xlsx": lambda: read_sheets(path, options.limit, list(options.sheets)),
        "html": lambda: read_html(page_text(path, options.encoding), options.main),
        "markdown": lambda: read_markdown(_text(path, options.encoding)),
    }
    fix = "fetch or save the file again"
    try:
        yield from readers[kind]()
    except TanzimError:
        raise
    except RecursionError:
        raise DataError(f"the {NAMES[kind]} is nested too deeply", fix=fix) from None
    except MemoryError:
        raise DataError(f"the {NAMES[kind]} takes too much memory to read", fix="leave it out") from None
    except PARSER_FAULTS as error:
        raise DataError(f"the {NAMES[kind]} is damaged ({first_line(error)})", fix=fix) from None
    except Exception as error:
        if not type(error).__module__.startswith(("pypdf", "lxml", "openpyxl")):  # their own kinds
            raise
        raise DataError(f"the {NAMES[kind]} is damaged ({first_line(error)})", fix=fix) from None


def _text(path: Path, encoding: str) -> str:
    content = open_content(path, encoding)
    data = b"".join(content.chunks)
    try:
        return data.decode(content.codec)
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not {content.codec} throughout ({error.reason} at byte {error.start})",
            fix="save it as UTF-8, or name its encoding in data.encoding",
        ) from None


def page_text(path: Path, encoding: str) -> str:
    """Return the text of an HTML file: UTF-8 where it is, else in the encoding that the page names.

    Raises:
        DataError: it names none, or not its own.

    """
    if encoding in ("auto", "detect"):
        data = b"".join(read_bytes(path))
        named = _CHARSET.search(data[:4096])
        try:
            data.decode()
        except UnicodeDecodeError:
            try:
                name = codecs.lookup(named[1].decode()).name if named else ""
                return data.decode(_WEB.get(name, name)) if named else _text(path, encoding)
            except (LookupError, UnicodeDecodeError):
                return _text(path, encoding)
    return _text(path, encoding)
