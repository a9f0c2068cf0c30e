"""Lets a request in before a byte of its body is read: finds out who asks, and whether they may."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from tanzim.serve.access.keys import Keys
from tanzim.serve.access.limits import Limits, Strangers
from tanzim.serve.access.page import check_own_page
from tanzim.serve.access.roles import Caller, Right
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError


def is_local(host: str) -> bool:
    """Tell whether an address is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def needs_key(config: ServeConfig) -> bool:
    """Tell whether every request needs a key: so it is as soon as others can reach the server."""
    return config.require_key or not is_local(config.host)


class Gate:
    """Stands before every route.

    Args:
        keys: that are known.
        limits: of each.
        required: whether a key is needed; without one, whoever reaches this machine's own address is its
            admin.

    """

    def __init__(self, keys: Keys, limits: Limits, *, required: bool) -> None:
        self._keys, self.limits, self._required = keys, limits, required
        self._strangers = Strangers()

    async def admit(self, request: Request, right: Right) -> Caller:
        """Return who asks.

        Raises:
            ApiError: the key is missing or wrong (401), lacks the right (403), or has used up its
                allowance (429); without a key, a page of another site asks (403).

        """
        caller = await self._caller(request)
        request.state.caller = caller
        if not caller.may(right):
            raise ApiError(
                403, f"A key of role '{caller.role}' may not do this.", code="insufficient_permissions"
            )
        self.limits.admit(caller)
        return caller

    async def still(self, caller: Caller) -> None:
        """See whether a key that was let in is good to this moment.

        Raises:
            ApiError: it has ended meanwhile (401).

        """
        if caller.key is not None and await run_in_threadpool(self._keys.ended, caller.key):
            raise ApiError(401, "The API key has expired or was revoked.", code="invalid_api_key")

    async def _caller(self, request: Request) -> Caller:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else ""
        if not self._required and not key.startswith("tz-"):
            check_own_page(request.headers, request.scope["scheme"], is_local)
            return Caller()
        caller = await run_in_threadpool(self._keys.caller, key)
        if caller is None:
            address = request.client.host if request.client else ""
            self._strangers.note(address)
            message = "The API key is missing, wrong, expired or revoked: Authorization: Bearer KEY."
            raise ApiError(401, message, code="invalid_api_key")
        return caller


class GatedRoute(APIRoute):
    """A route whose right is asked for before its body is read, so that a stranger's fills nothing."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the gate before it."""
        handler = super().get_route_handler()
        rights = [getattr(one.call, "right", None) for one in self.dependant.dependencies]
        right: Right | None = next(filter(None, rights), None)

        async def gated(request: Request) -> Response:
            if right is None:
                return await handler(request)
            gate: Gate = request.app.state.gate
            caller = await gate.admit(request, right)
            form = request.headers.get("content-type", "").startswith("multipart/")
            with gate.limits.uploading(caller.project if form else None):
                return await handler(request)

        return gated


def _dependency(right: Right) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    async def admitted(request: Request) -> Caller:
        caller: Caller | None = getattr(request.state, "caller", None)
        if caller is None:  # a route of another kind
            gate: Gate = request.app.state.gate
            caller = await gate.admit(request, right)
        return caller

    admitted.right = right  # type: ignore[attr-defined]  # by it a route, and a test, see what is needed
    return admitted


# What a route's handler takes, by the right it needs.
Sees = Annotated[Caller, Depends(_dependency("see"))]
Asks = Annotated[Caller, Depends(_dependency("ask"))]
Trains = Annotated[Caller, Depends(_dependency("train"))]
Manages = Annotated[Caller, Depends(_dependency("manage"))]
