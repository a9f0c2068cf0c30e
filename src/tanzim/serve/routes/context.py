"""What every route needs."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from tanzim.core.records import Json
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError
from tanzim.serve.jobs.supervisor import Supervisor
from tanzim.serve.jobs.work import Workshop
from tanzim.serve.observe.metrics import Metrics
from tanzim.serve.observe.requests import RequestLog
from tanzim.serve.service import Service
from tanzim.serve.store.page import Page
from tanzim.serve.store.quota import FullError
from tanzim.serve.store.store import Store

MB = 1 << 20
_LONGEST = 255  # characters of a file's name
# They turn the direction of what follows, so that a name looks like another (Unicode TR 36).
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


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
        supervisor: of the jobs.

    """

    service: Service
    store: Store
    workshop: Workshop
    config: ServeConfig
    metrics: Metrics
    log: RequestLog
    supervisor: Supervisor


def listed(page: Page, objects: list[Json]) -> Json:
    """Return a page as OpenAI's API shows lists."""
    ends = {"first_id": objects[0]["id"], "last_id": objects[-1]["id"]} if objects else {}
    return {"object": "list", "data": objects, **ends, "has_more": page.more}


def missing(kind: str, id_: str) -> ApiError:
    """Return the error of an id that the project does not have."""
    return ApiError(404, f"No such {kind}: {id_}", code="not_found", param="id")


def plain_name(name: str) -> str:
    """Return a file's name as a client gave it, without folders, and without signs that rule a terminal."""
    shown = "".join(sign for sign in name if unicodedata.category(sign) != "Cc" and sign not in _TURNS)
    return shown.replace("\\", "/").rsplit("/", 1)[-1][:_LONGEST] or "file"


def too_much(full: FullError, param: str) -> ApiError:
    """Return the error of a file for which its project has no room."""
    return ApiError(400, f"The project's {full}. Delete some.", code="storage_full", param=param)
