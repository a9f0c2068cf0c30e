"""Rows of a database: one query, read through a cursor of the server, in a transaction that cannot write."""

from __future__ import annotations

import datetime
import ipaddress
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tanzim.core.errors import ConfigError, DataError
from tanzim.core.files import new_file
from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.data.ingest.config import SqlSource
from tanzim.data.ingest.fetch import Job
from tanzim.data.ingest.rows import BadRow, excerpt
from tanzim.data.ingest.secrets import Secrets
from tanzim.data.ingest.snapshot import SnapshotWriter, described

_ROWS = 1000  # fetched at a time
_TIMEOUTS = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "mariadb": "connect_timeout"}


def fetch(source: SqlSource, job: Job) -> list[Json]:
    """Write the rows of a query to the folder of ``job``.

    Raises:
        ConfigError: the URL is of no known database, or a variable it names is not set.
        DataError: the database refuses the connection or the query.
        MissingExtra: SQLAlchemy or the database's driver is not installed.

    """
    name = f"{_shown(source.url)} ({excerpt(' '.join(source.query.split()))[:80]})"
    with new_file(job.folder / "rows.jsonl") as stream:
        writer = SnapshotWriter(stream)
        for value in read_sql(source):
            try:
                writer.row({column: _plain(cell) for column, cell in value.items()})
            except BadRow as error:
                writer.rejected(error.reason, error.detail, excerpt(value))
            if writer.rows % _ROWS == 0:
                job.progress(writer.rows, None, f"fetching {name}")
    return [described("rows.jsonl", name, "rows of a query", query=source.query, rows=writer.rows)]


def read_sql(source: SqlSource) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query as the database's driver gives them, a thousand in memory at a time.

    Args:
        source: the database and the query.

    Raises:
        ConfigError: the URL is of no known database, or a variable it names is not set.
        DataError: the database refuses the connection or the query.

    """
    secrets = Secrets(_shown(source.url))
    with _told(source, secrets):
        engine = _engine(source, secrets)
        options = {"stream_results": True, "yield_per": _ROWS, "no_parameters": True}
        if engine.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        try:
            # The transaction is never committed: what it holds is undone when the connection closes.
            with (
                engine.connect().execution_options(**options) as connection,
                closing(connection.exec_driver_sql(source.query)) as result,
            ):
                columns = _columns(list(result.keys()), source)
                for row in result:
                    yield dict(zip(columns, row, strict=True))
        finally:
            engine.dispose()


def _engine(source: SqlSource, secrets: Secrets) -> Any:  # noqa: ANN401 - SQLAlchemy's engine
    alchemy = need("sqlalchemy", "sql")
    filled = secrets.fill(source.url, lambda value: quote(value, safe=""))
    try:
        url = alchemy.make_url(filled)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        if url.password:
            secrets.hide_also(url.password)
        family = url.get_backend_name()
        if family == "sqlite":
            return alchemy.create_engine("sqlite://", creator=lambda: _sqlite(url.database, source.url))
        arguments = {_TIMEOUTS[family]: source.connect_timeout_s} if family in _TIMEOUTS else {}
        return alchemy.create_engine(url, connect_args=arguments, poolclass=alchemy.NullPool)
    except (alchemy.exc.ArgumentError, alchemy.exc.NoSuchModuleError, ValueError) as error:
        raise ConfigError(
            f"this is not the URL of a database: {secrets.hidden(_first(error))}",
            where=_shown(source.url),
            fix="write it as sqlite:///file.db or postgresql+psycopg://user@host/database",
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"the driver of this database is not installed ({error.name})",
            where=_shown(source.url),
            fix=f"pip install {error.name}",
        ) from None


def _sqlite(database: str | None, shown: str) -> sqlite3.Connection:
    path = Path(database or "").expanduser()
    if not database or not path.is_file():
        raise DataError("there is no such database file", where=shown, fix="check the path after sqlite:///")
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)


@contextmanager
def _told(source: SqlSource, secrets: Secrets) -> Iterator[None]:
    """Say in one line what the database refuses, without a password."""
    errors: Any = need("sqlalchemy.exc", "sql")
    try:
        yield
    except errors.SQLAlchemyError as error:
        said = secrets.hidden(_first(getattr(error, "orig", None) or error))
        connected = not isinstance(error, errors.OperationalError) or "sqlite" in source.url
        raise DataError(
            f"the database refuses {'the query' if connected else 'to connect or to answer'}: {said}",
            where=_shown(source.url),
            fix="check the query and the rights of this user"
            if connected
            else "check host, user and database; the password comes from the environment "
            "(PGPASSWORD, or ${NAME} in the URL)",
        ) from None


def _first(error: BaseException) -> str:
    """Return the message of a driver in one line, without the lines that draw a caret under the query."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and set(line.strip()) != {"^"}]
    return (lines[0] if lines else type(error).__name__)[:300]


def _shown(url: str) -> str:
    """Return a URL without user name and password."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _columns(names: Sequence[str], source: SqlSource) -> Sequence[str]:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(
            f"the query gives two columns the name '{min(twice)}'",
            where=_shown(source.url),
            fix=f"name each: SELECT a.{min(twice)} AS one, b.{min(twice)} AS other",
        )
    return names


def _plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any cell of a database
    """Return a cell as JSON has it.

    Raises:
        BadRow: it is of a kind that has no obvious text, or bytes that are not UTF-8.

    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else str(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID | datetime.timedelta | ipaddress._IPAddressBase):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise BadRow("a column holds bytes that are not UTF-8 text", str(error)) from None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    raise BadRow("a column is of a kind that is no text", type(value).__name__)
