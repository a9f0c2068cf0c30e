"""Lets a request in: finds out who asks, and whether the route's right is theirs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from tanzim.serve.access.keys import Keys
from tanzim.serve.access.limits import Limits
from tanzim.serve.access.roles import Caller, Right
from tanzim.serve.config import ServeConfig
from tanzim.serve.errors import ApiError

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


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

    def admit(self, request: Request, right: Right) -> Caller:
        """Return who asks.

        Raises:
            ApiError: the key is missing or wrong (401), lacks the right (403), or has used up its
                allowance (429).

        """
        caller = self._caller(request)
        request.state.caller = caller
        if not caller.may(right):
            raise ApiError(
                403, f"A key of role '{caller.role}' may not do this.", code="insufficient_permissions"
            )
        self.limits.admit(caller)
        return caller

    def _caller(self, request: Request) -> Caller:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else ""
        if not self._required and not key.startswith("tz-"):
            if request.url.hostname not in LOCAL_NAMES:  # a browser page under a name of its own
                name = request.url.hostname
                raise ApiError(403, f"This server answers on this machine only, not as '{name}'.")
            return Caller()
        caller = self._keys.caller(key)
        if caller is None:
            message = "The API key is missing, wrong, expired or revoked: Authorization: Bearer KEY."
            raise ApiError(401, message, code="invalid_api_key")
        return caller


def _dependency(right: Right) -> Callable[[Request], Caller]:
    def admit(request: Request) -> Caller:
        gate: Gate = request.app.state.gate
        return gate.admit(request, right)

    admit.right = right  # type: ignore[attr-defined]  # by it a test sees what a route needs
    return admit


# What a route's handler takes, by the right it needs.
Sees = Annotated[Caller, Depends(_dependency("see"))]
Asks = Annotated[Caller, Depends(_dependency("ask"))]
Trains = Annotated[Caller, Depends(_dependency("train"))]
Manages = Annotated[Caller, Depends(_dependency("manage"))]
