"""Raw sockets: what a client does slowly, twice, halfway or not at all; and what no answer tells."""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.serve.access.limits import REFUSALS
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import open_store
from tanzim.serve.store.tables import audit

Start = Callable[..., AbstractContextManager[str]]
CHAT = b'{"model": "tiny", "messages": [{"role": "user", "content": "the"}], "max_tokens": 2}'
LONG = 60  # seconds in which a busy machine does what should take one


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Start:
    def started(**settings: Any) -> AbstractContextManager[str]:
        return serving(engine, Lines(engine.tokenizer), {"tiny": None}, tmp_path / "server", **settings)

    return started


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=LONG)


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the server closes; fail if it does not."""
    got = b""
    with suppress(ConnectionError):
        while block := connection.recv(1 << 16):
            got += block
    return got


def sent(url: str, data: bytes) -> bytes:
    with connect(url) as connection:
        connection.sendall(data)
        return rest(connection)


def until(connection: socket.socket, sign: bytes) -> None:
    """Read until ``sign`` has come; fail if it does not."""
    got = b""
    while sign not in got:
        block = connection.recv(1 << 16)
        assert block, got
        got += block


def drip(connection: socket.socket) -> None:
    """Send a byte now and then until the server has had enough; fail if it never has."""
    start = time.monotonic()
    connection.settimeout(0.05)
    with suppress(ConnectionError):
        while time.monotonic() - start < LONG:
            connection.sendall(b"x")
            try:
                if not connection.recv(1 << 16):
                    return
            except TimeoutError:
                continue
        pytest.fail("the connection is still open")


def test_a_head_that_comes_slowly_or_not_at_all_is_cut_off(start: Start) -> None:
    with start(patience_seconds=1) as url:
        with connect(url) as idle, connect(url) as slow, connect(url) as second:
            slow.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
            second.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until(second, b'"ok"')
            second.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
            drip(slow)
            drip(second)
            assert rest(idle) == b""
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_body_that_comes_slowly_is_refused_and_its_connection_cut_off(start: Start) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with start(patience_seconds=1) as url, connect(url) as slow:
        slow.sendall(head + b"Content-Length: 1000000\r\n\r\n{")
        until(slow, b"HTTP/1.1 408 ")
        drip(slow)
    # Who sends faster than that is waited for, also beyond the time for doing nothing.
    padded = CHAT + b" " * 128_000
    with start(patience_seconds=2) as url, connect(url) as steady:
        steady.sendall(head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(padded))
        for begin in range(0, len(padded), 32_000):
            steady.sendall(padded[begin : begin + 32_000])
            time.sleep(0.8)
        assert rest(steady).startswith(b"HTTP/1.1 200 ")


def test_a_stranger_is_refused_before_the_body_is_read(start: Start) -> None:
    paths = ("files", "chat/completions", "uploads/upload-1/parts", "fine_tuning/jobs")
    with start(require_key=True, patience_seconds=1) as url:
        for path in paths:
            with connect(url) as connection:
                head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n"
                connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
                until(connection, b"HTTP/1.1 401 ")
                drip(connection)


def test_an_answer_that_nobody_takes_is_cut_off(start: Start) -> None:
    content = b"x" * (32 << 20)
    with start(patience_seconds=1) as url:
        sent_ = {"file": ("a", content)}
        file = httpx.post(f"{url}/v1/files", files=sent_, data={"purpose": "fine-tune"}, timeout=LONG).json()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, port = url.removeprefix("http://").split(":")
            connection.connect((host, int(port)))
            connection.settimeout(LONG)
            connection.sendall(
                f"GET /v1/files/{file['id']}/content HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
            )
            time.sleep(4)
            assert len(rest(connection)) < len(content)
        taken = httpx.get(f"{url}/v1/files/{file['id']}/content", timeout=LONG)
        assert taken.content == content


SMUGGLED = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        POST + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 0, 0x1\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n" + SMUGGLED,
        POST + b"Host: evil.example\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nA: a\x00b\r\n\r\n" + SMUGGLED,
        b"GET / health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    ],
)
def test_no_request_hides_in_another(start: Start, request_: bytes) -> None:
    with start() as url:
        answers = sent(url, request_)
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", answers)
    assert b'"ok"' not in answers  # what stood inside was not answered
    assert statuses
    assert all(status in (b"400", b"404") for status in statuses), answers


def test_methods_that_nobody_serves(start: Start) -> None:
    with start() as url:
        for method in ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PUT", "PATCH", "PROPFIND", "A" * 3000):
            answer = httpx.request(method, f"{url}/v1/models")
            assert answer.status_code == 405, method
            if method != "HEAD":
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert "secret" not in answer.text
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        assert httpx.get(f"{url}/v1/models", headers=upgrade).status_code == 200
        assert httpx.get(f"{url}/v1/files/").status_code == 404  # and not sent on to where Host says


def test_what_every_answer_says_and_none_does(start: Start) -> None:
    body = {"content": CHAT, "headers": {"Content-Type": "application/json", "Origin": "http://127.0.0.1"}}
    with start(max_body_mb=0.01) as url:
        answers = [
            httpx.get(f"{url}/v1/models", headers={"Accept-Encoding": "gzip"}),
            httpx.get(f"{url}/health"),
            httpx.get(f"{url}/v1/none"),
            httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"}),
            httpx.post(f"{url}/v1/chat/completions", **body),
            httpx.post(f"{url}/v1/chat/completions", content=b"x" * 50_000),
            httpx.post(f"{url}/v1/chat/completions", content=b"{"),
        ]
    for answer in answers:
        heads = answer.headers
        assert heads["x-content-type-options"] == "nosniff"
        assert heads["cache-control"] == "no-store"
        assert heads["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in heads["content-security-policy"]
        assert not {"server", "x-powered-by", "access-control-allow-origin", "set-cookie"} & set(heads)
        assert "Traceback" not in answer.text
        assert "tanzim/" not in answer.text  # no path of its source


def test_bodies_in_other_codings_are_not_unpacked(start: Start) -> None:
    packed = gzip.compress(b'{"model": "tiny", "messages": [' + b" " * (50 << 20))
    with start() as url:
        for coding in ("gzip", "deflate", "br", "zstd"):
            heads = {"Content-Type": "application/json", "Content-Encoding": coding}
            answer = httpx.post(f"{url}/v1/chat/completions", content=packed, headers=heads, timeout=LONG)
            assert answer.status_code == 400
            assert "error" in answer.json()


def test_who_goes_on_without_a_good_key_is_answered_shortly_and_not_written_down(
    start: Start, tmp_path: Path
) -> None:
    store = open_store(ServeConfig(folder=str(tmp_path / "server")))
    good = {"Authorization": f"Bearer {store.keys.add('good', role='viewer')}"}
    with start(require_key=True) as url, httpx.Client(base_url=url, timeout=LONG) as client:
        bad = {"Authorization": "Bearer tz-0123456789abcdef-" + "A" * 43}
        statuses = [client.get("/v1/models", headers=bad).status_code for _ in range(REFUSALS + 20)]
        assert statuses[:REFUSALS] == [401] * REFUSALS
        assert statuses[-1] == 429
        assert client.get("/v1/models", headers=good).status_code == 200  # their neighbours are let in
        client.post("/v1/none", headers={})
        client.request("DELETE", "/v1/files")  # there is no such: nothing was changed, nothing is noted
    with store.database.begin() as connection:
        noted = connection.execute(select(audit.c.path, audit.c.status)).all()
    store.close()
    assert noted == [("/v1/models", 401)] * statuses.count(401)
