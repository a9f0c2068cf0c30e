"""HTTP connections that cannot be held open by doing nothing (uvicorn's own limits only idle ones).

Whoever sends the head of a request slowly, goes on sending a body that was refused, or takes no answer, is
cut off; how fast a body must come is `tanzim.serve.bounds`' part.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FEW, _MANY = 64, 10_000  # connections at a time: at least, at most


def most_connections() -> int:
    """Return how many connections are served at a time: half of the files that the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else min(_MANY, max(_FEW, soft // 2))


def patient_for(seconds: float) -> type[H11Protocol]:
    """Return the protocol whose connections wait so long (s) for their clients."""

    class Bounded(_Bounded):
        patience = seconds
        most = most_connections()

    return Bounded


class _Bounded(H11Protocol):
    """One connection.

    Attributes:
        patience: how long its client may keep it waiting (s).
        most: connections at a time; further ones are closed.

    """

    patience: float
    most: int
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as in uvicorn
        """Begin to wait for the head of the first request."""
        if len(self.connections) >= self.most:
            transport.abort()
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came: the end of a head ends the wait for it, the beginning of another begins one."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._wait()
        elif self.conn.our_state not in (h11.DONE, h11.MUST_CLOSE):  # a body is the application's matter
            self._stop()

    def on_response_complete(self) -> None:
        """Give a client that still sends the body of an answered request no longer than others."""
        super().on_response_complete()
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if answered and self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._wait()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self._writing = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting for it."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _wait(self) -> None:
        if self._reading is None:
            self._reading = self.loop.call_later(self.patience, self.transport.abort)

    def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
