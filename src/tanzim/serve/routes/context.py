"""What every route needs, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from tanzim.core.records import Json
from tanzim.serve.errors import ApiError
from tanzim.serve.jobs.work import Workshop
from tanzim.serve.service import Service
from tanzim.serve.store.page import Page
from tanzim.serve.store.store import Store

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Context:
    """The server's parts.

    Args:
        service: the models.
        store: what is remembered.
        workshop: how jobs are configured.

    """

    service: Service
    store: Store
    workshop: Workshop


def project_of(request: Request) -> str:
    """Return the project of whoever asks.

    Raises:
        ApiError: a browser page reached us under a name of its own (DNS rebinding).

    """
    if request.url.hostname not in LOCAL_NAMES:
        raise ApiError(403, f"This server answers on this machine only, not as '{request.url.hostname}'.")
    return PROJECT


def listed(page: Page, objects: list[Json]) -> Json:
    """Return a page as OpenAI's API shows lists."""
    ends = {"first_id": objects[0]["id"], "last_id": objects[-1]["id"]} if objects else {}
    return {"object": "list", "data": objects, **ends, "has_more": page.more}


def missing(kind: str, id_: str) -> ApiError:
    """Return the error of an id that the project does not have."""
    return ApiError(404, f"No such {kind}: {id_}", code="not_found", param="id")
