"""Texts that no database and no tokenizer takes, sent to every place; on SQLite and a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.postgres import PASSWORD, local_postgres
from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.serve.catalogue import Catalogue

TURN = {"role": "user", "content": "hi"}
UPLOAD = {"filename": "x", "purpose": "fine-tune", "bytes": 5, "mime_type": "x"}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    renderer, names = Lines(engine.tokenizer), {"tiny": None}
    if request.param == "sqlite":
        with serving(engine, renderer, names, tmp_path) as address:
            yield address
        return
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with local_postgres() as server:
        database = server.url().replace("postgresql+psycopg", "postgresql")
        with serving(engine, renderer, names, tmp_path, database=database) as address:
            yield address


def bodies(bad: str) -> list[tuple[str, dict[str, Any]]]:
    """Return requests that hold a text where there may be any."""
    tool = {"type": "function", "function": {"name": bad, "parameters": {bad: bad}}}
    chat = {"model": "tiny", "messages": [TURN], "max_tokens": 2}
    job = {"model": "tiny", "training_file": "x"}
    return [
        ("chat/completions", {**chat, "model": bad}),
        ("chat/completions", {**chat, "messages": [{**TURN, "content": bad}]}),
        ("chat/completions", {**chat, "stop": bad}),
        ("chat/completions", {**chat, "tools": [tool]}),
        ("chat/completions", {**chat, "metadata": {bad: bad}}),
        ("chat/completions", {**chat, bad: 1}),
        ("completions", {"model": "tiny", "prompt": bad, "max_tokens": 2}),
        ("responses", {"model": "tiny", "input": bad, "max_output_tokens": 2, "metadata": {bad: bad}}),
        ("responses", {"model": "tiny", "input": "x", "max_output_tokens": 2, "user": bad}),
        ("embeddings", {"model": "tiny", "input": bad}),
        ("embeddings", {"model": bad, "input": "x"}),
        ("fine_tuning/jobs", {**job, "training_file": bad}),
        ("fine_tuning/jobs", {**job, "metadata": {bad: bad}}),
        ("fine_tuning/jobs", {**job, "tanzim": {"train": {bad: bad}}}),
        ("uploads", {**UPLOAD, "filename": bad}),
        ("uploads/x/complete", {"part_ids": [bad]}),
        ("load_lora_adapter", {"lora_name": bad, "lora_path": bad}),
        ("unload_lora_adapter", {"lora_name": bad}),
    ]


def test_every_text_is_taken_or_refused(url: str) -> None:
    with httpx.Client(timeout=60) as client:
        answers = []
        for bad in ("a\x00b", "\ud800", "\udc00\ud800x", "\uffff\ufdd0"):
            for path, body in bodies(bad):
                sent = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
                answers.append(client.post(f"{url}/v1/{path}", **sent))
        for place in ("a%00b", "%ed%a0%80", "%ff"):
            for path in (
                "files/{}",
                "models/{}",
                "fine_tuning/jobs/{}",
                "files?after={}",
                "files?purpose={}",
            ):
                answers.append(client.get(f"{url}/v1/{path.format(place)}"))
            answers.append(client.delete(f"{url}/v1/files/{place}"))
            answers.append(client.post(f"{url}/v1/uploads/{place}/cancel"))
        named = {"file": ("a\x00b\u202e.jsonl", b"{}")}
        answers.append(client.post(f"{url}/v1/files", files=named, data={"purpose": "fine-tune"}))
        for answer in answers:
            where = (answer.request.url, answer.text[:300])
            assert answer.status_code < 500, where
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, where
        assert {answer.status_code for answer in answers} >= {200, 400, 404}
        assert client.get(f"{url}/health").json() == {"status": "ok"}


def test_a_fault_of_the_server_has_the_apis_shape(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Catalogue, "models", broken)
    with serving(engine, Lines(engine.tokenizer), {"tiny": None}, tmp_path) as url:
        answer = httpx.get(f"{url}/v1/models")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text
