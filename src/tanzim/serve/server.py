"""Run a web application on this machine's own address."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from tanzim.core.errors import ConfigError

GRACE_SECONDS = 5  # what answers under way get at shutdown


def run_server(app: FastAPI, host: str, port: int, *, announce: Callable[[str], None] = print) -> None:
    """Serve ``app`` until interrupted (Ctrl-C or SIGTERM).

    Args:
        app: the application.
        host: a loopback address or localhost.
        port: the port; 0 takes a free one.
        announce: told the address once it is bound.

    Raises:
        ConfigError: the host is not loopback, or the port is taken.

    """
    listener = _bind(host, port)
    address = listener.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    announce(f"http://{shown}:{address[1]}/v1")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _bind(host: str, port: int) -> socket.socket:
    """Open a listening socket on a loopback address."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        parsed = None
    if parsed is None or not parsed.is_loopback:
        raise ConfigError(
            f"'{host}' is not an address of this machine alone",
            where="serve.host",
            fix="use 127.0.0.1: the server has no keys yet, so anybody who reaches it could use it",
        )
    listener = socket.socket(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} cannot be used: {error.strerror}",
            where="serve.port",
            fix="choose another, or 0 for a free one",
        ) from error
    return listener
