"""What readers yield: a row of columns, or a row that cannot be used and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tanzim.core.errors import DataError
from tanzim.core.records import Json

EXCERPT = 300  # characters of a refused row that are kept for the reader of rejected.jsonl


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source.

    Args:
        row: its number, counted from 1.
        value: its columns.
        about: what the example is to say of itself, such as the page or the sheet it stands on.

    """

    source: str
    row: int
    value: Json
    about: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row that cannot be used.

    Args:
        reason: the kind of fault, the same words for every row that has it.
        detail: what is particular to this row.
        content: the beginning of the row.

    """

    source: str
    row: int
    reason: str
    detail: str = ""
    content: str = ""

    def to_json(self) -> Json:
        """Return the line of ``rejected.jsonl``."""
        return {
            "file": self.source,
            "row": self.row,
            "reason": self.reason,
            "detail": self.detail,
            "content": self.content,
        }


class BadRow(DataError):
    """One row cannot be used; it becomes a `Rejected` with a count, not the end of the run."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def excerpt(value: Any) -> str:  # noqa: ANN401 - any value a row may hold
    """Return the beginning of a value as text."""
    text = value if isinstance(value, str) else repr(value)
    return text[:EXCERPT] + ("…" if len(text) > EXCERPT else "")
