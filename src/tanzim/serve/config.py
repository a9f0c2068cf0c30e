"""The ``serve`` section of ``tanzim.yaml``."""

from __future__ import annotations

from pydantic import Field

from tanzim.core.config import Section


class ServeConfig(Section):
    """The OpenAI-compatible server."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback only, until keys and roles are there."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest answer where a request sets no max_tokens."""
    max_batch: int = Field(8, ge=1)
    """Most requests computed together."""
