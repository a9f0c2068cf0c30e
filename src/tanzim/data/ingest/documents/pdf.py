"""Paragraphs of a PDF, page by page, through pypdf."""

from __future__ import annotations

import logging
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.optional import need
from tanzim.data.ingest.documents.blocks import PARSER_FAULTS, Block, Fault, first_line, tidy
from tanzim.data.ingest.documents.visual import common_words, is_right_to_left, letters, logical

_EDGE = 2  # lines at the top and bottom of a page that may be a running head or foot
_NUMBERS = re.compile(r"\d+")
_BULLET = re.compile(r"(?:[•▪●■◦‣∙*·–—-]|\(?[\dA-Za-z۰-۹]{1,3}[.)])\s")
_ENDS = (".", "!", "?", "؟", "…", ":", "؛", "»", "”", '"', ")")
_ROOM = "\u2029"  # marks a line after which the page leaves room
_GAP = re.compile(r"\S {6,}\S")  # in a line of the page's layout: two columns


def read_pdf(path: Path) -> Iterator[Block | Fault]:
    """Yield the paragraphs of a PDF; lines of one paragraph are joined, running heads and feet left out.

    Letters within a word broken at the end of a line are joined; right-to-left pages are read by where
    their letters stand. Pages that are pictures become faults.

    Args:
        path: the file.

    Raises:
        DataError: it is protected by a password, damaged, or has no text at all.

    """
    pypdf = need("pypdf", "documents")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # of what it mends; faults are ours to tell
    reader = pypdf.PdfReader(path, strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise DataError("the PDF is protected by a password", fix="save it without the password")
    pages: list[list[str]] = []
    faults: list[Fault] = []
    for number, page in enumerate(reader.pages, 1):
        lines: list[str] = []
        try:
            lines = _page_lines(page)
            if not lines and _has_picture(page):
                faults.append(Fault("the page is a picture without text", f"page {number}"))
        except (pypdf.errors.PyPdfError, *PARSER_FAULTS) as error:
            faults.append(Fault("the page is damaged", f"page {number}: {first_line(error)}"))
        pages.append(lines)
    if not any(pages):
        _no_text(len(pages), faults)
    yield from faults
    running = _running(pages)
    for number, lines in enumerate(pages, 1):
        body = _without(lines, running)
        for paragraph in paragraphs(body):
            yield Block(paragraph, page=number)


def _no_text(pages: int, faults: list[Fault]) -> None:
    if faults and all("picture" in fault.reason for fault in faults):
        raise DataError(
            f"the PDF has no text: it is scanned (pages of pictures: {pages})",
            fix="recognise its text first, such as with `ocrmypdf`",
        )
    if faults:
        raise DataError(f"the PDF is damaged ({faults[0].detail})", fix="fetch the file again")
    raise DataError(f"the PDF has no text (pages: {pages})", fix="leave it out")


def _page_lines(page: Any) -> list[str]:  # noqa: ANN401 - a pypdf page
    """Return the lines of a page; of a right-to-left one in the order that makes more common words.

    A line after which the page leaves room ends in U+2029, where that can be seen.
    """
    plain: str = page.extract_text()
    rows = plain.split("\n")
    if is_right_to_left(plain):
        laid = page.extract_text(extraction_mode="layout").split("\n")
        turned = [logical(letters(row)) for row in laid]
        columns = sum(bool(_GAP.search(row.strip())) for row in laid) > 0.3 * sum(map(bool, laid))
        kept, better = common_words(plain), common_words("\n".join(turned))
        if not columns and better and better >= kept:
            rows = turned
    blank = sum(not row.strip() for row in rows)
    lines: list[str] = []
    for row in rows:
        if line := tidy(letters(row)):
            lines.append(line)
        elif lines and blank < 0.4 * len(rows):
            lines[-1] = lines[-1].rstrip(_ROOM) + _ROOM
    return lines


def _has_picture(page: Any) -> bool:  # noqa: ANN401 - a pypdf page
    """Tell whether a page shows a picture, without decoding it."""
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    found = objects.get_object().values() if objects is not None else ()
    inline = b" ID" in (page.get_contents().get_data() if page.get_contents() is not None else b"")
    return inline or any(one.get_object().get("/Subtype") in ("/Image", "/Form") for one in found)


def _masked(line: str) -> str:
    return _NUMBERS.sub("#", line).rstrip(_ROOM)


def _running(pages: list[list[str]]) -> set[str]:
    """Return the lines, numbers masked, that stand at the edge of most pages."""
    full = [lines for lines in pages if len(lines) > 2 * _EDGE]
    counts = Counter(
        masked for lines in full for masked in {_masked(line) for line in (*lines[:_EDGE], *lines[-_EDGE:])}
    )
    return {line for line, count in counts.items() if count >= 3 and count > 0.5 * len(full)}


def _without(lines: list[str], running: set[str]) -> list[str]:
    """Leave out running heads and feet, and a page's bare number."""
    last = len(lines) - _EDGE
    return [
        line
        for place, line in enumerate(lines)
        if not (
            (place < _EDGE or place >= last)
            and (_masked(line) in running or (len(lines) > 1 and _masked(line).strip("-–— ") == "#"))
        )
    ]


def paragraphs(lines: list[str]) -> list[str]:
    """Join the lines of a page into paragraphs.

    A paragraph ends where the page leaves room, or where a line stops well short of the others and ends
    a sentence; list items and other short lines stay lines. A word parted by a hyphen at the end of a line
    is joined if it goes on in lower case.
    """
    if not lines:
        return []
    width = statistics.quantiles([len(line) for line in lines], n=10)[-1] if len(lines) > 1 else 0
    if width < 30:  # verse, a table, a title page
        return ["\n".join(lines).replace(f"{_ROOM}\n", "\n\n").rstrip(_ROOM)]
    joined: list[str] = [lines[0]]
    for before, line in pairwise(lines):
        if len(before) > 2 and before[-1] in "-\u00ad" and before[-2].isalpha() and line[0].islower():
            joined[-1] = joined[-1][:-1] + line
        elif before.endswith(_ROOM) or (len(before) < 0.75 * width and before.endswith(_ENDS)):
            joined.append(line)
        elif len(before) < 0.5 * width or _BULLET.match(line):
            joined[-1] += f"\n{line}"
        else:
            joined[-1] += f" {line}"
    return [one.replace(_ROOM, "") for one in joined]
