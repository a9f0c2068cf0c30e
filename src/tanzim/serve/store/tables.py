"""The tables of the server's database: one schema for SQLite and PostgreSQL.

``number`` orders rows by their making and is what pages count by; ``id`` is what clients see. Times are
seconds since 1970, as OpenAI's API has them.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)


def _number() -> Column[int]:
    # SQLite counts up by itself in a column of exactly this type.
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


files = Table(
    "files",
    metadata,
    _number(),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", String(64), nullable=False, index=True),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    _number(),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", String(64), nullable=False, index=True),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("file", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

parts = Table(
    "parts",
    metadata,
    _number(),
    Column("id", String(64), nullable=False, unique=True),
    Column("upload", String(64), ForeignKey("uploads.id"), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    _number(),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", String(64), nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("training_file", String(64), nullable=False),
    Column("validation_file", String(64)),
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    Column("method", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("metadata", JSON),
    Column("status", String(32), nullable=False, index=True),
    Column("wanted", String(16), nullable=False),
    Column("owner", Text),
    Column("attempts", Integer, nullable=False),
    Column("read_bytes", BigInteger, nullable=False),
    Column("error", JSON),
    Column("fine_tuned_model", Text),
    Column("trained_tokens", BigInteger),
    Column("result_file", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("estimated_finish", BigInteger),
)

events = Table(
    "events",
    metadata,
    _number(),
    Column("id", String(64), nullable=False, unique=True),
    Column("job", String(64), ForeignKey("jobs.id"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("message", Text, nullable=False),
    Column("type", String(16), nullable=False),
    Column("data", JSON),
)

models = Table(
    "models",
    metadata,
    _number(),
    Column("id", Text, nullable=False, unique=True),
    Column("project", String(64), nullable=False, index=True),
    Column("job", String(64), ForeignKey("jobs.id")),
    Column("adapter", Text, nullable=False),
    Column("step", BigInteger),
    Column("metrics", JSON),
    Column("created_at", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    _number(),
    Column("id", String(16), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("project", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    _number(),
    Column("at", BigInteger, nullable=False),
    Column("key", String(16)),
    Column("project", String(64), index=True),
    Column("address", Text, nullable=False),
    Column("method", String(16), nullable=False),
    Column("path", Text, nullable=False),
    Column("status", Integer, nullable=False),
)
