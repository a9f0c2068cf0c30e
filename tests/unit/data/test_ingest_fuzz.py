"""Bytes that no server, sitemap, connector or config should hold: one clear error or a value, no more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.properties import examples, soon
from tanzim.core.config import load
from tanzim.core.errors import ConfigError
from tanzim.data.ingest.airbyte import _secret_values
from tanzim.data.ingest.client import Bounds, Unreachable, get, normal
from tanzim.data.ingest.guard import Guard
from tanzim.data.ingest.pages import _around, _kind
from tanzim.data.ingest.robots import Robots
from tanzim.data.ingest.secrets import Secrets
from tanzim.data.ingest.sitemap import _named, _unzipped
from tanzim.pipeline.config import Config

LOCAL = Guard(("127.0.0.1",))
MANY = examples(200)
FEW = examples(60)
HEADERS = (b"Location", b"Content-Length", b"Content-Encoding", b"Transfer-Encoding", b"Content-Type", b"x")
VALUES = st.one_of(
    st.sampled_from(
        [b"gzip", b"deflate", b"chunked", b"-1", b"5", b"9" * 5000, b"http://[::1", b"//", b"/x"]
    ),
    st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n")),
)


@contextmanager
def says(data: bytes) -> Iterator[str]:
    """Answer each connection with the same bytes."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            with one:
                try:
                    one.recv(65536)
                    one.sendall(data)
                except OSError:
                    continue

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def _read(data: bytes) -> None:
    """Read an answer; any error but the one meant for it goes through."""
    with says(data) as url, suppress(Unreachable), get(url, LOCAL, Bounds(2, 2, whole=True)) as answer:
        assert len(answer.body(10_000)) <= 10_000


@FEW
@given(st.binary(max_size=300))
@soon()
def test_any_bytes_for_an_answer(data: bytes) -> None:
    _read(data)


@FEW
@given(
    st.sampled_from([b"200 OK", b"302 x", b"999 x", b"200", b"x"]),
    st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=4),
    st.binary(max_size=60),
)
@soon()
def test_strange_headers(status: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    _read(b"HTTP/1.1 " + status + b"\r\n" + lines + b"\r\n" + body)


@FEW
@given(st.binary(max_size=200))
@soon()
def test_any_bytes_for_robots(data: bytes) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + b"User-agent: *\n" + data
    with says(body) as url:
        robots = Robots(LOCAL, Bounds(2, 2, whole=True), 0.0)
        with suppress(Unreachable):
            robots.check(url)


@MANY
@given(
    st.one_of(
        st.binary(max_size=300), st.text(alphabet="<>/!&;urlsetoc []\"'?x", max_size=200).map(str.encode)
    )
)
@soon()
def test_any_bytes_for_a_sitemap(data: bytes) -> None:
    for body in (data, b"<urlset><url><loc>" + data + b"</loc></url></urlset>", b"\x1f\x8b\x08" + data):
        with suppress(Unreachable):
            kind, urls = _named(_unzipped(body, "http://x.example/"), "http://x.example/")
            assert kind in ("pages", "sitemaps")
            assert all(normal(url) == url for url in urls)


@MANY
@given(st.text(max_size=60), st.text(max_size=60))
@example("\u2024", "")
@soon()
def test_any_text_for_a_url(start: str, rest: str) -> None:
    for url in (start, f"http://{start}/{rest}", f"https://x.example/{start}?{rest}"):
        try:
            found = normal(url)
        except Unreachable:
            continue
        assert found.isascii()
        assert normal(found) == found  # written one way


@MANY
@given(st.binary(max_size=300), st.text(max_size=40))
@soon()
def test_any_bytes_for_a_page(data: bytes, header: str) -> None:
    title, links = _around("http://x.example/", b"<html><head><title>" + data + b"<a href='" + data + b"'>")
    assert isinstance(title, str)
    assert all(link.startswith("http") for link in links)
    kind, charset = _kind(header)
    assert isinstance(kind + charset, str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["properties", "oneOf", "anyOf", "items", "airbyte_secret", "a", "b"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@MANY
@given(JSON, JSON)
@soon()
def test_any_specification_of_a_connector(schema: object, value: object) -> None:
    assert all(isinstance(path, tuple) for path, _ in _secret_values(schema, value, ()))


@MANY
@given(st.text(max_size=40))
@soon()
def test_a_secret_comes_back_out_of_no_message(text: str) -> None:
    secrets = Secrets("here")
    secrets.hide_also("hunter2", "hunter2 and more")
    assert "hunter2" not in secrets.hidden(f"{text}hunter2{text} hunter2 and more").replace(text, "")


@pytest.mark.parametrize(
    "yaml",
    [
        "data:\n  path: https://me:hunter2@x.example/a.csv\n",
        "data:\n  path:\n    - sftp://me:hunter2@x.example/a.csv\n",
        "data:\n  sources:\n    - {type: sql, url: 'mysql://me:hunter2@x.example/db', query: table a}\n",
        "data:\n  sources:\n    - {type: web, urls: ['https://me:hunter2@x.example/']}\n",
    ],
)
def test_a_refused_password_is_not_repeated(yaml: str, tmp_path: Path) -> None:
    path = tmp_path / "tanzim.yaml"
    path.write_text(yaml)
    with pytest.raises(ConfigError, match="password does not belong") as caught:
        load(Config, path)
    assert "hunter2" not in str(caught.value)
    assert "tanzim.yaml, line" in str(caught.value.where)
