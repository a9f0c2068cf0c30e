"""Keeps web pages of other sites from a server that asks this machine for no key.

A browser on this machine lets any page send requests to its own addresses: directly (forgery), or under a
name of the page's own that it has made to stand for this machine (rebinding). It says so in headers that a
page cannot change. Specification: https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from tanzim.serve.errors import ApiError

_OWN = ("same-origin", "none")  # none: somebody typed the address


def check_own_page(headers: Mapping[str, str], scheme: str, is_local: Callable[[str], bool]) -> None:
    """Refuse what the page of another site sends.

    Args:
        headers: of the request, by their names in lower case.
        scheme: http or https.
        is_local: tells whether a name or address is of this machine alone.

    Raises:
        ApiError: the server is asked under another name, or by a page that is not its own (403).

    """
    host = headers.get("host", "")
    if not is_local(_name(host)):
        raise ApiError(403, f"This server answers on this machine only, not as '{host[:200]}'.")
    origin = headers.get("origin")
    foreign = origin is not None and origin.lower() != f"{scheme}://{host.lower()}"
    if foreign or headers.get("sec-fetch-site", "none").lower() not in _OWN:
        message = "Without a key, pages of other sites are not answered; give the page one (tanzim keys add)."
        raise ApiError(403, message)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; empty if it is no name."""
    try:
        found = urlsplit(f"//{host}")
        _ = found.port
    except ValueError:
        return ""
    whole = found.netloc == host and not any(sign in host for sign in "@/?#\\ ,")
    return (found.hostname or "") if whole else ""
