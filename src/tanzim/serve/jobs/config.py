"""Where fine-tuning jobs run: ``serve.executor``."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator

from tanzim.core.config import Section


class LocalExecution(Section):
    """On this machine, each in a process of its own."""

    type: Literal["local"] = "local"


class RayExecution(Section):
    """As Ray Jobs of a cluster whose machines all see ``serve.folder`` and the working folder.

    A token for the cluster is taken from RAY_AUTH_TOKEN, or from the file that RAY_AUTH_TOKEN_PATH names.
    """

    type: Literal["ray"] = "ray"
    address: str = "http://127.0.0.1:8265"
    """Address of the cluster's dashboard, which takes the jobs."""
    cpus: float = Field(1.0, gt=0)
    """Cores that a job takes."""
    gpus: float = Field(0.0, ge=0)
    """GPUs that a job takes."""
    memory_gib: float | None = Field(None, gt=0)
    """Main memory that a job takes (GiB); unset: not counted."""
    lease_seconds: float = Field(60.0, ge=5, le=3600)
    """A process that has not been heard of for so long has ended itself: only then another goes on with its
    job (s)."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        found = urlsplit(value)
        more = found.username or found.password or found.path.strip("/") or found.query or found.fragment
        if found.scheme not in ("http", "https") or not found.hostname or more or found.port == 0:
            raise ValueError("the address of a dashboard is http://HOST:PORT, or https://")
        return value


def _type(value: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
    """Take ``local`` where no type is given."""
    return value.get("type", "local") if isinstance(value, dict) else getattr(value, "type", None)


ExecutorConfig = Annotated[
    Annotated[LocalExecution, Tag("local")] | Annotated[RayExecution, Tag("ray")], Discriminator(_type)
]
