"""Run a web application on an address of this machine."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tanzim.core.errors import ConfigError
from tanzim.serve.access.gate import is_local
from tanzim.serve.config import ServeConfig, TlsConfig
from tanzim.serve.drain import Drain, DrainedServer
from tanzim.serve.protocol import patient_for

# Of TLS 1.2; those of 1.3 are all good (RFC 9325, 4.2).
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

# Seconds that a connection may be idle. Longer than clients keep theirs (mostly 5 to 60), since who sends a
# request on a connection that we are just closing gets no answer.
_IDLE = 75


def run_server(app: FastAPI, config: ServeConfig, *, announce: Callable[[str], None] = print) -> None:
    """Serve ``app`` until interrupted (Ctrl-C or SIGTERM), and answer those under way to their end.

    The second interruption ends it at once.

    Args:
        app: the application.
        config: host, port and tls.
        announce: told the address once it is bound.

    Raises:
        ConfigError: the host is no address of this machine, or others can reach it and nothing encrypts; the
            port is taken; the certificate or its key cannot be used.

    """
    if not is_local(config.host) and config.tls is None and not config.plain_http:
        raise ConfigError(
            f"on '{config.host}' keys and texts could be read on their way",
            where="serve.host",
            fix="set serve.tls.certificate and serve.tls.key, or serve.plain_http=true if a proxy before the "
            "server encrypts",
        )
    encryption = _encryption(config.tls)
    listener = _bind(config.host, config.port)
    address = listener.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    announce(f"{'https' if config.tls else 'http'}://{shown}:{address[1]}/v1")
    with listener:
        settings = uvicorn_config(app, config, **encryption)
        DrainedServer(settings, Drain(app), config.drain_seconds).run(sockets=[listener])


def uvicorn_config(app: FastAPI, config: ServeConfig, **encryption: Any) -> uvicorn.Config:  # noqa: ANN401
    """Return how uvicorn serves ``app``: one implementation of HTTP wherever it runs, and no more of it.

    An address that a proxy tells is believed only where a proxy is said to be (``plain_http``), and only of
    one on this machine or named in FORWARDED_ALLOW_IPS.
    """
    return uvicorn.Config(
        app,
        http=patient_for(config.patience_seconds),
        ws="none",
        log_level="warning",
        timeout_keep_alive=_IDLE,
        server_header=False,
        proxy_headers=config.plain_http,
        **encryption,
    )


def _encryption(tls: TlsConfig | None) -> dict[str, Any]:
    """Return uvicorn's settings for tls, once its files have been found good."""
    if tls is None:
        return {}
    for key, path in (("certificate", tls.certificate), ("key", tls.key)):
        if not Path(path).is_file():
            raise ConfigError("there is no such file", where=f"serve.tls.{key}: {path}")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"the certificate and its key do not fit or cannot be read ({error.reason or error})",
            where=f"serve.tls: {tls.certificate}, {tls.key}",
            fix="give a certificate and the private key that belongs to it, both as PEM",
        ) from None
    return {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key, "ssl_ciphers": _CIPHERS}


def _bind(host: str, port: int) -> socket.socket:
    """Open a listening socket."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        raise ConfigError(
            f"'{host}' is no address",
            where="serve.host",
            fix="127.0.0.1 for this machine alone, 0.0.0.0 for all of its addresses",
        ) from None
    listener = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port {port} of {host} cannot be used: {error.strerror}",
            where="serve.port",
            fix="choose another, or 0 for a free one",
        ) from error
    return listener
