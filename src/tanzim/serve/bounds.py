"""How large a request may be: what is larger is refused before it fills memory or disk."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MB = 1 << 20
_FORM = 1 << 16  # bytes of a multipart form besides its file


class BodyBound:
    """Counts the bytes of each body as they come, whatever its headers say.

    Args:
        app: the application.
        most: of a body (MB).
        uploads: of a file's upload, or a part of it (MB).

    """

    def __init__(self, app: ASGIApp, most: float, uploads: float) -> None:
        self._app = app
        self._most, self._uploads = int(most * _MB), int(uploads * _MB) + _FORM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        in_parts = path.startswith("/v1/uploads/") and path.endswith("/parts")
        upload = scope["method"] == "POST" and (path == "/v1/files" or in_parts)
        most, seen = self._uploads if upload else self._most, 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                # FastAPI lets only this kind of error through while it reads a body.
                raise HTTPException(413, f"the request is larger than {most / _MB:g} MB")
            return message

        await self._app(scope, counted, send)
