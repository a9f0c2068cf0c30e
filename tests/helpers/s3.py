"""A server that speaks S3 (moto), for what goes to it through s3fs or boto3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
def serving() -> Iterator[str]:
    """Start the server; the value is its address."""
    server = _OneAtATime("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
