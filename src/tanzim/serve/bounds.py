"""How large and how slow a request may be: what is beyond is refused before it fills memory, disk or time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError

_MB = 1 << 20
_FORM = 1 << 16  # bytes of a multipart form besides its file
FORM: Any = {"max_files": 1, "max_fields": 4, "max_part_size": _FORM}
"""What a multipart form may hold: a file, and short texts."""
_SLOWEST = 8 << 10  # bytes of a body in a second, on the whole
# No browser takes an answer for anything but what it is, keeps it, or shows it inside another site's page.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


class BodyBound:
    """Counts the bytes of each body as they come, whatever its headers say, and the time they take.

    Args:
        app: the application.
        config: how large a body may be, and how long it may take to come.

    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._most, self._uploads = int(config.max_body_mb * _MB), int(config.max_file_mb * _MB) + _FORM
        self._patience = config.patience_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        in_parts = path.startswith("/v1/uploads/") and path.endswith("/parts")
        upload = scope["method"] == "POST" and (path == "/v1/files" or in_parts)
        most, seen, waited, whole = self._uploads if upload else self._most, 0, 0.0, False

        async def counted() -> Message:
            nonlocal seen, waited, whole
            if whole:
                return await receive()
            left, start = self._patience + seen / _SLOWEST - waited, time.monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body comes too slowly") from None
            waited += time.monotonic() - start
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > most:
                # FastAPI lets only this kind of error through while it reads a body.
                raise HTTPException(413, f"the request is larger than {most / _MB:g} MB")
            return message

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        names = [name for name, _ in scope["headers"]]
        if b"content-length" in names and b"transfer-encoding" in names:
            await _ambiguous(headed)
            return
        await self._app(scope, counted, headed)


async def _ambiguous(send: Send) -> None:
    """Refuse a body with two lengths, of which a proxy may have seen the other (RFC 9112, 6.3)."""
    error = ApiError(400, "A request has Content-Length or Transfer-Encoding, not both.")
    answer = JSONResponse(error.body(), error.status, {"Connection": "close"})
    await answer({"type": "http"}, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
