"""Where the server listens: on this machine alone, unless it is told otherwise and speaks tls."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tanzim.core.errors import ConfigError
from tanzim.serve.access.gate import needs_key
from tanzim.serve.config import ServeConfig, TlsConfig
from tanzim.serve.server import run_server

PROGRAM = """
import json, sys
from fastapi import FastAPI
from tanzim.serve.config import ServeConfig
from tanzim.serve.server import run_server
app = FastAPI()
app.get("/")(lambda: "here")
config = ServeConfig.model_validate(json.loads(sys.argv[1]))
run_server(app, config, announce=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "8.8.8.8", "example.com"])
def test_elsewhere_it_must_encrypt_and_ask_for_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="could be read on their way"):
        run_server(FastAPI(), ServeConfig(host=host))
    assert needs_key(ServeConfig(host=host, plain_http=True))
    assert needs_key(ServeConfig(require_key=True))
    assert not needs_key(ServeConfig())


def test_a_taken_port_and_a_wrong_address_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            run_server(FastAPI(), ServeConfig(port=port))
    with pytest.raises(ConfigError, match="no address"):
        run_server(FastAPI(), ServeConfig(host="example.com", plain_http=True))


def test_a_wrong_certificate_is_named(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("-----BEGIN NOTHING-----")
    tls = TlsConfig(certificate=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match="do not fit or cannot be read"):
        run_server(FastAPI(), ServeConfig(tls=tls))
    with pytest.raises(ConfigError, match="no such file"):
        run_server(FastAPI(), ServeConfig(tls=TlsConfig(certificate=str(tmp_path / "none"), key="x")))


@contextmanager
def running(config: ServeConfig) -> Iterator[str]:
    """Run the program; yield its address; end it by SIGTERM, which it obeys."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, config.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().removesuffix("/v1")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_free_port_is_announced_and_left_on_sigterm() -> None:
    with running(ServeConfig(host="localhost", port=0)) as url:
        assert httpx.get(url).json() == "here"


def test_tls_is_spoken_with_the_given_certificate(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = TlsConfig(certificate=str(certificate), key=str(key))
    with running(ServeConfig(port=0, tls=tls)) as url:
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(url, verify=trusted).json() == "here"
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            httpx.get(url)
        for versions, ciphers, spoken in (
            ((ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3), "ALL", True),
            ((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "ECDHE+AESGCM", True),
            ((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "ECDHE+AES:!AESGCM:!AESCCM", False),  # CBC
            ((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "kRSA", False),  # no forward secrecy
            ((ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1), "ALL", False),
        ):
            assert greets(url, trusted_by(certificate), versions, f"{ciphers}:@SECLEVEL=0") is spoken, ciphers


def trusted_by(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def greets(
    url: str, context: ssl.SSLContext, versions: tuple[ssl.TLSVersion, ssl.TLSVersion], ciphers: str
) -> bool:
    """Tell whether the server speaks any of these versions and ciphers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the versions that must be refused
        context.minimum_version, context.maximum_version = versions
    context.set_ciphers(ciphers)
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                return True
        except (ssl.SSLError, ConnectionError):
            return False
