"""Pages of a list, as OpenAI's API has them: so many at a time, after the last one seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list.

    Args:
        rows: in the order asked for.
        more: whether others follow.

    """

    rows: Sequence[RowMapping]
    more: bool


def page(
    connection: Connection,
    table: Table,
    query: Select[Any],
    *,
    after: str | None = None,
    limit: int = 20,
    oldest_first: bool = False,
) -> Page:
    """Return a page of ``query`` over ``table``, the newest first unless told otherwise.

    Args:
        connection: of a transaction.
        table: has ``number`` and ``id``.
        query: selects its rows.
        after: the id of the last row seen; one that ``query`` does not select begins at the start.
        limit: rows of a page.
        oldest_first: the order.

    """
    number = table.c.number
    if after is not None:
        seen = connection.scalar(query.with_only_columns(number).where(table.c.id == after))
        if seen is not None:
            query = query.where(number > seen if oldest_first else number < seen)
    query = query.order_by(number if oldest_first else number.desc()).limit(limit + 1)
    rows = connection.execute(query).mappings().all()
    return Page(rows[:limit], len(rows) > limit)
