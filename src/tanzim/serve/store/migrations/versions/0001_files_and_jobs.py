"""Files, jobs with their events, and models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "files",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", name="uq_files_id"),
    )
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("training_file", sa.String(64), nullable=False),
        sa.Column("validation_file", sa.String(64)),
        sa.Column("suffix", sa.String(64)),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("method", sa.JSON, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("wanted", sa.String(16), nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("read_bytes", sa.BigInteger, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("fine_tuned_model", sa.Text),
        sa.Column("trained_tokens", sa.BigInteger),
        sa.Column("result_file", sa.String(64)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("estimated_finish", sa.BigInteger),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
    )
    op.create_table(
        "events",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("job", sa.String(64), sa.ForeignKey("jobs.id", name="fk_events_job"), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON),
        sa.UniqueConstraint("id", name="uq_events_id"),
    )
    op.create_table(
        "models",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("job", sa.String(64), sa.ForeignKey("jobs.id", name="fk_models_job")),
        sa.Column("adapter", sa.Text, nullable=False),
        sa.Column("step", sa.BigInteger),
        sa.Column("metrics", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", name="uq_models_id"),
    )
    for table, column in (
        ("files", "project"),
        ("jobs", "project"),
        ("jobs", "status"),
        ("events", "job"),
        ("models", "project"),
    ):
        op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("models", "events", "jobs", "files"):
        op.drop_table(table)
