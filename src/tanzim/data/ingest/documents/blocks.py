"""What readers of documents yield: headings and paragraphs in reading order, and what cannot be read."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

# What parsers of other people raise on bytes they did not foresee. They promise no error of their own
# (pypdf: "broken PDF files might cause other exceptions"), so the kinds are named here, once.
PARSER_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
    RecursionError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip

_SPACES = re.compile(r"[ \t\r\f\v\u00a0]+")


@dataclass(frozen=True, slots=True)
class Block:
    """A heading or a paragraph.

    Args:
        text: what it says; may hold line feeds.
        level: of a heading, 1 to 6; 0 for anything else.
        page: the page it stands on, counted from 1; None where there are no pages.

    """

    text: str
    level: int = 0
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a document that cannot be read."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cells:
    """A row of a sheet as text, numbers and truth values; the first may be a header.

    Args:
        sheet: its name.
        values: of the cells; a formula that was never computed as it is written.
        row: its number in the sheet, counted from 1.
        uncomputed: the first cell whose formula was never computed, such as "B7"; "" if there is none.

    """

    sheet: str
    values: list[str | int | float | bool | None]
    row: int
    uncomputed: str = ""


Part = Block | Fault | Cells


def tidy(text: str) -> str:
    """Return text without runs of spaces; line feeds and half-spaces stay."""
    return "\n".join(line for raw in text.split("\n") if (line := _SPACES.sub(" ", raw).strip()))


def first_line(error: BaseException) -> str:
    """Return what an error says in one short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
