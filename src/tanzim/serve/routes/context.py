"""What every route needs."""

from __future__ import annotations

from dataclasses import dataclass

from tanzim.core.records import Json
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError
from tanzim.serve.jobs.work import Workshop
from tanzim.serve.observe.metrics import Metrics
from tanzim.serve.observe.requests import RequestLog
from tanzim.serve.service import Service
from tanzim.serve.store.page import Page
from tanzim.serve.store.store import Store

MB = 1 << 20
_LONGEST = 255  # characters of a file's name


@dataclass(frozen=True, slots=True)
class Context:
    """The server's parts.

    Args:
        service: the models.
        store: what is remembered.
        workshop: how jobs are configured.
        config: the ``serve`` section.
        metrics: what is counted.
        log: of answers.

    """

    service: Service
    store: Store
    workshop: Workshop
    config: ServeConfig
    metrics: Metrics
    log: RequestLog


def listed(page: Page, objects: list[Json]) -> Json:
    """Return a page as OpenAI's API shows lists."""
    ends = {"first_id": objects[0]["id"], "last_id": objects[-1]["id"]} if objects else {}
    return {"object": "list", "data": objects, **ends, "has_more": page.more}


def missing(kind: str, id_: str) -> ApiError:
    """Return the error of an id that the project does not have."""
    return ApiError(404, f"No such {kind}: {id_}", code="not_found", param="id")


def plain_name(name: str) -> str:
    """Return a file's name as a client gave it, without folders, and without NUL (PostgreSQL takes none)."""
    return name.replace("\0", "").replace("\\", "/").rsplit("/", 1)[-1][:_LONGEST] or "file"


def too_much(config: ServeConfig, param: str) -> ApiError:
    """Return the error of a file for which its project has no room."""
    message = f"The project's files would hold more than {config.max_project_mb:g} MB. Delete some."
    return ApiError(400, message, code="storage_full", param=param)
