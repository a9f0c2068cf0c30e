"""Errors in OpenAI's shape, so that its clients raise their own exceptions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from tanzim.core.records import Json

_AGAIN = 2.0  # seconds after which a database may be back
_PG_FULL = "53100"  # PostgreSQL's code of a full disk


class ApiError(Exception):
    """An answer other than 200.

    Args:
        status: HTTP status.
        message: what was wrong, and what to do.
        code: OpenAI's machine-readable code.
        param: the field at fault.
        retry_after: seconds after which it is worth trying again.

    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> Json:
        """Return the JSON body."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        param = None if self.param is None else _whole(self.param)
        error = {"message": _whole(self.message), "type": kind, "param": param, "code": self.code}
        return {"error": error}


def answer(error: ApiError) -> JSONResponse:
    """Return an error as the answer to a request."""
    headers = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
    return JSONResponse(error.body(), error.status, headers)


def away(error: Exception) -> ApiError:
    """Return the error of a database that is away, busy, or has no room."""
    cause = getattr(error, "orig", None) or error
    if getattr(cause, "sqlstate", None) == _PG_FULL or "disk is full" in str(cause):
        return no_room()
    message = "The server's database is away for the moment. Nothing that was confirmed is lost; try again."
    return ApiError(503, message, code="unavailable", retry_after=_AGAIN)


def files_away() -> ApiError:
    """Return the error of a storage of files that is away."""
    message = "The storage of the server's files is away for the moment; try again."
    return ApiError(503, message, code="unavailable", retry_after=_AGAIN)


def no_room() -> ApiError:
    """Return the error of a disk that is full."""
    return ApiError(507, "The server's disk is full; its owner must make room.", code="storage_full")


def _whole(text: str) -> str:
    """Return a text that can be sent, whatever a client wrote that is repeated in it."""
    return text.encode(errors="replace").decode()


def refusal(faults: Sequence[Mapping[str, Any]], body: object) -> ApiError:
    """Turn what pydantic found into the error that OpenAI would answer with.

    Args:
        faults: what pydantic found. Of the first field at fault the innermost is told: where a field may have
            several forms, the others say no more than that it is not theirs.
        body: the request's body, as far as it could be read.

    """
    field = faults[0]["loc"][:2]
    fault = max((one for one in faults if one["loc"][:2] == field), key=lambda one: len(one["loc"]))
    if fault["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {fault.get('ctx', {}).get('error', '')}")
    param = _param(fault["loc"][1:], body)
    if fault["type"] == "extra_forbidden":
        return ApiError(
            400, f"Unrecognized request argument supplied: {param}", code="unknown_parameter", param=param
        )
    code = "missing_required_parameter" if fault["type"] == "missing" else "invalid_value"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param or 'body'}: {message}", code=code, param=param)


def _param(loc: Sequence[str | int], value: Any) -> str | None:  # noqa: ANN401 - any JSON value
    """Name the field, without the names that pydantic gives to the branches of a union."""
    names: list[str] = []
    for part in loc:
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif names:
            continue
        names.append(str(part))
    return ".".join(names) or None
