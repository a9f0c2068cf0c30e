"""The server's database: SQLite by default, PostgreSQL by URL, with its schema brought up to date."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError, TimeoutError

from tanzim.core.errors import ConfigError

# What is raised while the database is away, or so busy that nobody can wait for it.
AWAY = (OperationalError, InterfaceError, TimeoutError)
_CONNECT = 5  # seconds until a host that does not answer counts as away
_LOCK = 0x7A2117  # of the schema, among PostgreSQL's advisory locks


def open_database(url: str) -> Engine:
    """Connect, and bring the schema up to date.

    What a transaction has written when it ends is on disk: a crash or a power cut loses nothing of it.

    Args:
        url: SQLAlchemy's form, such as ``sqlite:////path/server.sqlite`` or ``postgresql+psycopg://host/name``.
            The password may stand in the environment (``PGPASSWORD``).

    Raises:
        ConfigError: the database cannot be reached, or is newer than this program.

    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif parsed.get_backend_name() != "sqlite":
            raise ArgumentError("neither sqlite nor postgresql")
    except ArgumentError as error:
        raise ConfigError(
            f"this is no database URL that can be used ({error})",
            where="serve.database",
            fix="sqlite:///PATH or postgresql://USER@HOST/NAME",
        ) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        with suppress(OSError):  # connecting says what is wrong
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    if parsed.get_backend_name() == "postgresql" and "connect_timeout" not in parsed.query:
        parsed = parsed.update_query_dict({"connect_timeout": str(_CONNECT)})
    engine = create_engine(parsed, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _careful)
        event.listen(engine, "begin", _begin)
    try:
        with writing(engine) as connection:
            _upgrade(connection)
    except (SQLAlchemyError, CommandError) as error:
        engine.dispose()
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ConfigError(
            f"the database cannot be used: {reason}",
            where=f"serve.database: {parsed.render_as_string(hide_password=True)}",
            fix="check that it is running, and its address, user and password",
        ) from None
    return engine


def is_current(engine: Engine) -> bool:
    """Tell whether the database answers, and its schema is this program's."""
    head = ScriptDirectory.from_config(_migrations()).get_current_head()
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() == head
    except SQLAlchemyError:
        return False


def _careful(connection: object, _: object) -> None:
    """Make SQLite wait for other writers, keep references, and flush each transaction to disk."""
    connection.isolation_level = None  # type: ignore[attr-defined]  # transactions begin as `_begin` says
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for line in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 30000"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # Who reads first and writes later would be refused if another wrote in between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """Begin a transaction that writes; when its block ends well, all of it is on disk."""
    return engine.execution_options(writes=True).begin()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # two servers may start at once
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = _migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
