"""The end of a server that drops nothing: who is being answered gets the rest, later ones are sent away."""

from __future__ import annotations

import signal
import time
from types import FrameType

import uvicorn
from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tanzim.serve.errors import ApiError, answer

HEALTH = ("/health", "/health/ready")
_WATCHED = (*HEALTH, "/metrics")  # answered to the end, and waited for by nobody
_AGAIN = 1.0  # seconds after which another server may have taken this one's place
_CLOSE = 1  # seconds that connections get to close, and requests that were cut off to end


def leaving() -> ApiError:
    """Return the error of a request to a server that is about to end."""
    message = "The server is ending; another may take its place. Nothing was begun; try again."
    return ApiError(503, message, code="unavailable", retry_after=_AGAIN)


class Drain:
    """Counts the requests under way, and sends new ones away once the end has begun.

    Args:
        app: the application.

    Attributes:
        begun: whether the end has begun.
        under_way: requests that are being answered.

    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.begun = False
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or send it away."""
        scope.setdefault("state", {})["drain"] = self
        if scope["type"] != "http" or scope["path"] in _WATCHED:
            await self._app(scope, receive, send)
        elif self.begun:
            refused = answer(leaving())
            refused.headers["Connection"] = "close"
            await refused(scope, receive, send)
        else:
            self.under_way += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self.under_way -= 1


def draining(request: Request) -> bool:
    """Tell whether the end of the server that got a request has begun."""
    drain: Drain | None = getattr(request.state, "drain", None)
    return drain is not None and drain.begun


class DrainedServer(uvicorn.Server):
    """Ends at the first SIGTERM or Ctrl-C when nobody is being answered any more, at the second at once.

    Args:
        config: uvicorn's, but for the application and what concerns the end.
        drain: before the application.
        patience: how long those under way get (s).

    """

    def __init__(self, config: uvicorn.Config, drain: Drain, patience: float) -> None:
        config.app, config.timeout_graceful_shutdown = drain, _CLOSE
        super().__init__(config)
        self._drain, self._patience = drain, patience
        self._deadline = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self._drain.begun:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._drain.begun, self._deadline = True, time.monotonic() + self._patience

    async def on_tick(self, counter: int) -> bool:
        """Look whether the end has come."""
        over = not self._drain.under_way or time.monotonic() >= self._deadline
        self.should_exit = self.should_exit or (self._drain.begun and over)
        return await super().on_tick(counter)
