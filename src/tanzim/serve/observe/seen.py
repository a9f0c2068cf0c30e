"""What becomes known of a request on its way through the server, for its trace."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from tanzim.infer import request as infer
from tanzim.serve.access.roles import Caller
from tanzim.serve.reply import Tally


@dataclass(slots=True)
class Seen:
    """One request.

    Args:
        model: what it asks for, as the client wrote it.
        streamed: whether it is answered piece by piece.
        caller: who asks.
        generation: what the backend is asked for its first choice; None where nothing is generated.
        answer: what it comes to.
        said: what the client said, as the log keeps it.
        fault: what went wrong: the API's code, or the name of an error.

    """

    model: str | None = None
    streamed: bool = False
    caller: Caller | None = None
    generation: infer.Request | None = None
    answer: Tally | None = None
    said: str = ""
    fault: str | None = None


def seen(request: Request) -> Seen:
    """Return what is known of a request so far, to add to it."""
    state = request.scope.setdefault("state", {})
    known: Seen = state.setdefault("seen", Seen())
    return known
