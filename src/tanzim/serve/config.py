"""The ``serve`` section of ``tanzim.yaml``."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tanzim.core.config import Section
from tanzim.serve.engine_config import EngineConfig, TanzimEngineConfig
from tanzim.serve.jobs.config import ExecutorConfig, LocalExecution
from tanzim.serve.middleware.config import MiddlewareConfig


class TlsConfig(Section):
    """Encryption between clients and the server."""

    certificate: str
    """The certificate and those that vouch for it (a PEM file)."""
    key: str
    """Its private key (a PEM file)."""


class RequestLogConfig(Section):
    """The log of answers, a file a day in ``requests`` in the server's folder."""

    sample: float = Field(1.0, ge=0, le=1)
    """Share of the answers that are logged, drawn by chance."""
    texts: Literal["none", "redacted", "whole"] = "none"
    """Whether prompts and answers are in it; redacted hides personal data (the extra screen)."""
    days: int = Field(30, ge=1)
    """After which a day's file is deleted."""


class TracesConfig(Section):
    """OpenTelemetry's spans of requests and jobs, sent to a collector over OTLP/HTTP."""

    endpoint: str
    """The collector, such as http://127.0.0.1:4318; its key in OTEL_EXPORTER_OTLP_HEADERS."""
    texts: Literal["none", "redacted", "whole"] = "none"
    """Whether prompts and answers are in them; redacted hides personal data (the extra screen)."""

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str) -> str:
        found = urlsplit(value)
        if found.scheme not in ("http", "https") or not found.hostname:
            raise ValueError("an endpoint begins with http:// or https:// and names a host")
        if found.username or found.password or found.query:
            raise ValueError("secrets do not belong into an endpoint: set OTEL_EXPORTER_OTLP_HEADERS")
        return value


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
    engine: EngineConfig = TanzimEngineConfig()
    """What computes the answers."""
    tool_format: Literal["auto", "hermes", "llama", "mistral"] = "auto"
    """How the model writes calls of tools (docs/server.md); auto goes by its chat template."""
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
    repository: str | None = None
    """The adapter repository, a folder or s3://bucket/prefix, whose adapters of this base every project may
    ask: what is promoted for a task by the task's name, a version by name@version. Unset: none."""
    adapter_memory_mb: float | None = Field(None, gt=0)
    """Memory that loaded adapters may take together (MB); the longest unused go for others. Unset: a quarter
    of what is free when the server starts."""
    adapter_folders: list[str] = Field(default_factory=list)
    """Folders below which /v1/load_lora_adapter may open adapters; none: it opens nothing."""
    middleware: list[MiddlewareConfig] = Field(default_factory=list)
    """What each prompt passes before generation, first to last, and each answer before delivery, and back."""
    request_log: RequestLogConfig = RequestLogConfig()
    """What is written down of each answer."""
    traces: TracesConfig | None = None
    """Where spans are sent (the extra traces); unset sends none."""
    drain_seconds: float = Field(30.0, ge=0)
    """When it is told to end, the server takes no more requests and gives those under way this long (s)."""
    max_jobs: int = Field(1, ge=1)
    """Fine-tuning jobs that run at the same time."""
    executor: ExecutorConfig = LocalExecution()
    """Where fine-tuning jobs run."""
    max_file_mb: float = Field(512.0, gt=0)
    """Largest file a client may upload (MB)."""
    max_project_mb: float = Field(10_240.0, gt=0)
    """Most that a project's files may hold together (MB)."""
    max_body_mb: float = Field(8.0, gt=0)
    """Largest body of any other request (MB)."""
    patience_seconds: float = Field(30.0, gt=0)
    """How long a client may keep the server waiting (s): for the head of a request, for its body (a second
    more for each 8 KiB), and for room to send an answer."""
