"""Where the server listens: on this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from fastapi import FastAPI

from tanzim.core.errors import ConfigError
from tanzim.serve.server import run_server

PROGRAM = """
from fastapi import FastAPI
from tanzim.serve.server import run_server
app = FastAPI()
app.get("/")(lambda: "here")
run_server(app, "localhost", 0, announce=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com", "8.8.8.8"])
def test_other_machines_are_kept_out(host: str) -> None:
    with pytest.raises(ConfigError, match="this machine alone"):
        run_server(FastAPI(), host, 0)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            run_server(FastAPI(), "127.0.0.1", port)


def test_a_free_port_is_announced_and_left_on_sigterm() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().removesuffix("/v1")
        try:
            assert httpx.get(url).json() == "here"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
