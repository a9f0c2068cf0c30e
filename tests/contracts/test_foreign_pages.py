"""Web pages at a server that asks this machine for no key: forged requests, and names made to stand for it.

What a browser sends is written down here as the Fetch and Fetch Metadata standards have it: a page cannot
change Host, Origin or Sec-Fetch-Site, and without a preflight (which is refused) it can send forms and plain
text, but neither Authorization nor JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine

ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
CHAT = '{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}'
FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "https://{host}"},  # of another scheme
    {"origin": "http://127.0.0.1:1"},  # of another program on this machine
    {"origin": "http://localhost:{port}"},  # the same server under a name that the request does not use
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "http://{host}", "sec-fetch-site": "cross-site"},
    {"host": "evil.example"},
    {"host": "evil.example:{port}", "origin": "http://evil.example:{port}", "sec-fetch-site": "same-origin"},
    {"host": "a_b.evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": "evil.example, 127.0.0.1"},
    {"host": "evil.example@127.0.0.1"},
    {"host": "127.0.0.1/evil"},
    {"host": "127.0.0.1:x"},
    {"host": "[::1"},
    {"host": ""},
    {"host": "0.0.0.0"},
]
OWN = [
    {},
    {"origin": "http://{host}", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {"host": "localhost:{port}"},
    {"host": "LOCALHOST:{port}", "origin": "http://localhost:{port}"},
    {"host": "[::1]:{port}"},
    {"host": "127.0.0.1"},
]


@pytest.fixture
def url(engine: Engine, tmp_path: Path) -> Iterator[str]:
    with serving(engine, Lines(engine.tokenizer), {"tiny": None}, tmp_path) as address:
        yield address


def filled(headers: dict[str, str], url: str) -> dict[str, str]:
    host = url.removeprefix("http://")
    return {key: value.format(host=host, port=host.split(":")[1]) for key, value in headers.items()}


def requests(file: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what a page can send by itself, and what a preflight would have to allow."""
    text = {"content-type": "text/plain"}
    job = f'{{"model": "tiny", "training_file": "{file}"}}'
    return [
        ("GET", "models", {}),
        ("GET", f"files/{file}/content", {}),
        ("POST", "files", {"files": {"file": ("a", ROW)}, "data": {"purpose": "fine-tune"}}),
        ("POST", "chat/completions", {"content": CHAT, "headers": text}),
        ("POST", "fine_tuning/jobs", {"content": job, "headers": text}),
        ("POST", "fine_tuning/jobs", {"content": job, "headers": {"content-type": "application/json"}}),
        ("POST", "fine_tuning/jobs/ftjob-1/cancel", {}),
        ("DELETE", f"files/{file}", {}),
    ]


def test_no_foreign_page_is_answered_and_nothing_is_changed(url: str) -> None:
    with httpx.Client(base_url=f"{url}/v1", timeout=60) as client:
        form = {"files": {"file": ("mine", ROW)}, "data": {"purpose": "fine-tune"}}
        file = client.post("/files", **form).json()["id"]
        for told in FOREIGN:
            for method, path, more in requests(file):
                asked = {**more, "headers": {**more.get("headers", {}), **filled(told, url)}}
                answer = client.request(method, path, **asked)
                assert answer.status_code == 403, (told, method, path, answer.text)
                assert "access-control-allow-origin" not in answer.headers
            preflight = {**filled(told, url), "access-control-request-method": "POST"}
            assert client.options("/fine_tuning/jobs", headers=preflight).status_code >= 400
        assert [one["id"] for one in client.get("/files").json()["data"]] == [file]
        assert client.get("/fine_tuning/jobs").json()["data"] == []


def test_text_that_pretends_to_be_json_starts_nothing(url: str) -> None:
    with httpx.Client(base_url=f"{url}/v1", timeout=60) as client:
        for kind in ("text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", ""):
            sent = client.post("/chat/completions", content=CHAT, headers={"content-type": kind})
            assert sent.status_code == 400, kind


def test_its_own_pages_and_plain_clients_are_answered(url: str) -> None:
    for told in OWN:
        answer = httpx.get(f"{url}/v1/models", headers=filled(told, url))
        assert answer.status_code == 200, (told, answer.text)
