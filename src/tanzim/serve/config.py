"""The ``serve`` section of ``tanzim.yaml``."""

from __future__ import annotations

from pydantic import Field

from tanzim.core.config import Section
from tanzim.serve.middleware.config import MiddlewareConfig


class TlsConfig(Section):
    """Encryption between clients and the server."""

    certificate: str
    """The certificate and those that vouch for it (a PEM file)."""
    key: str
    """Its private key (a PEM file)."""


class ServeConfig(Section):
    """The OpenAI-compatible server."""

    host: str = "127.0.0.1"
    """Address to listen on. Elsewhere than on this machine alone, every request needs a key, and tls or
    plain_http must be set."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    require_key: bool = False
    """Ask for a key on this machine, too."""
    tls: TlsConfig | None = None
    """Serve https."""
    plain_http: bool = False
    """Listen elsewhere without tls, since a proxy before the server does the encryption."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer where a request sets no max_tokens."""
    max_batch: int = Field(8, ge=1)
    """Most requests computed together."""
    folder: str = "server"
    """Where the server keeps what it must not lose: its database, files and jobs."""
    database: str | None = None
    """The database: sqlite:///PATH or postgresql://USER@HOST/NAME (the password in PGPASSWORD); unset takes
    server.sqlite in the folder."""
    files: str | None = None
    """Where clients' files lie: a folder, or s3://bucket/prefix; unset takes the folder."""
    middleware: list[MiddlewareConfig] = Field(default_factory=list)
    """What each prompt passes before generation (first to last), and each answer before delivery (and back)."""
    max_jobs: int = Field(1, ge=1)
    """Fine-tuning jobs that run at the same time."""
    max_file_mb: float = Field(512.0, gt=0)
    """Largest file a client may upload (MB)."""
    max_project_mb: float = Field(10_240.0, gt=0)
    """Most that a project's files may hold together (MB)."""
    max_body_mb: float = Field(16.0, gt=0)
    """Largest body of any other request (MB)."""
