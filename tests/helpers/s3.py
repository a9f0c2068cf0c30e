"""A server that speaks S3 (moto), for what goes to it through s3fs or boto3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import s3fs
from moto.server import DomainDispatcherApplication, ThreadedMotoServer, create_backend_app
from werkzeug.serving import make_server


class _OneAtATime(ThreadedMotoServer):
    """moto looks whether a key exists and then writes it; S3 does both at once, and so does this server."""

    def _server_entry(self) -> None:
        app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

        def locked(environ: Any, start_response: Any) -> Any:
            with lock:
                return list(app(environ, start_response))

        self._server = make_server(self._ip_address, self._port, locked, threaded=True)
        self._server_ready_event.set()
        self._server.serve_forever()


@contextmanager
def serving(port: int = 0) -> Iterator[str]:
    """Start the server; the value is its address. What it keeps stays when another follows it."""
    server = _OneAtATime("127.0.0.1", port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Outage:
    """A server with one bucket that goes away and comes back at the same address."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._open = ExitStack()
        address = self._open.enter_context(serving())
        self._port = urlsplit(address).port or 0
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # or each call takes some seconds to fail
        s3fs.S3FileSystem.clear_instance_cache()  # it would keep another test's server
        boto3.client("s3").create_bucket(Bucket="outage")
        self.place = "s3://outage/files"

    def begin(self) -> None:
        """Go away."""
        self._open.close()

    def end(self) -> None:
        """Come back."""
        self._open.enter_context(serving(self._port))


@contextmanager
def outage() -> Iterator[Outage]:
    """Start a server that can go away."""
    with pytest.MonkeyPatch.context() as patch:
        made = Outage(patch)
        try:
            yield made
        finally:
            made.begin()
            s3fs.S3FileSystem.clear_instance_cache()
