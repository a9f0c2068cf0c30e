"""Who may do what, over a real socket: every route × every role × another project's things."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import serving
from tanzim.core.records import Message
from tanzim.infer.engine import Engine
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import Workshop
from tanzim.serve.access.roles import RIGHTS, Role
from tanzim.serve.app import create_app
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.store import Store, open_store
from tanzim.serve.worker import Worker

ROLES = list(RIGHTS)
ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "the"}], "max_tokens": 2}
TEXT = {"model": "tiny", "prompt": "the", "max_tokens": 2}
# What even those with the right are told here.
NEVER = {
    ("/v1/models/{name:path}", "DELETE"): (403, "cannot be deleted"),  # the base
    ("/v1/load_lora_adapter", "POST"): (403, "serve.adapter_folders"),
    ("/v1/unload_lora_adapter", "POST"): (404, "was not loaded"),
}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": TEXT,
    "/v1/responses": {"model": "tiny", "input": "the", "max_output_tokens": 2},
    "/v1/embeddings": {"model": "tiny", "input": "the"},
    "/v1/load_lora_adapter": {"lora_name": "x", "lora_path": "/etc"},
    "/v1/unload_lora_adapter": {"lora_name": "x"},
    "/v1/uploads": {"filename": "x.jsonl", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/jsonl"},
}
# What each route needs, written down a second time: path, method → the least role.
LEAST: dict[tuple[str, str], Role | None] = {
    ("/health", "GET"): None,
    ("/health/ready", "GET"): None,
    ("/metrics", "GET"): "viewer",
    ("/openapi.json", "GET"): "viewer",
    ("/v1/models", "GET"): "viewer",
    ("/v1/models/{name:path}", "GET"): "viewer",
    ("/v1/models/{name:path}", "DELETE"): "trainer",
    ("/v1/chat/completions", "POST"): "user",
    ("/v1/completions", "POST"): "user",
    ("/v1/responses", "POST"): "user",
    ("/v1/embeddings", "POST"): "user",
    ("/v1/files", "POST"): "trainer",
    ("/v1/files", "GET"): "viewer",
    ("/v1/files/{id_}", "GET"): "viewer",
    ("/v1/files/{id_}", "DELETE"): "trainer",
    ("/v1/files/{id_}/content", "GET"): "trainer",
    ("/v1/uploads", "POST"): "trainer",
    ("/v1/uploads/{id_}/parts", "POST"): "trainer",
    ("/v1/uploads/{id_}/complete", "POST"): "trainer",
    ("/v1/uploads/{id_}/cancel", "POST"): "trainer",
    ("/v1/load_lora_adapter", "POST"): "admin",
    ("/v1/unload_lora_adapter", "POST"): "admin",
    ("/v1/fine_tuning/jobs", "POST"): "trainer",
    ("/v1/fine_tuning/jobs", "GET"): "viewer",
    ("/v1/fine_tuning/jobs/{id_}", "GET"): "viewer",
    ("/v1/fine_tuning/jobs/{id_}/events", "GET"): "viewer",
    ("/v1/fine_tuning/jobs/{id_}/checkpoints", "GET"): "viewer",
    ("/v1/fine_tuning/jobs/{id_}/cancel", "POST"): "trainer",
    ("/v1/fine_tuning/jobs/{id_}/pause", "POST"): "trainer",
    ("/v1/fine_tuning/jobs/{id_}/resume", "POST"): "trainer",
}


class Words:
    """A renderer of the words alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: Any, tools: Any = ()) -> list[int]:
        said: list[Message] = list(messages)
        return self._tokenizer.encode("".join(turn.content for turn in said), add_special_tokens=False)


@dataclass
class Place:
    """A server that asks for keys: one of each role in project a, and an admin's of project b."""

    url: str
    keys: dict[str, str]
    store: Store
    file: str
    job: str
    uploads: list[str]
    part: str

    def ask(self, method: str, path: str, key: str | None, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys.get(key, key)}"} if key else {}
        return httpx.request(method, f"{self.url}{path}", headers=headers, **more)


@pytest.fixture
def place(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Iterator[Place]:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    store = open_store(ServeConfig(folder=str(tmp_path)))
    keys = {role: store.keys.add(role, role=role, project="a") for role in ROLES}
    keys["foreign"] = store.keys.add("foreign", role="admin", project="b")
    (tmp_path / "rows").write_bytes(ROW)
    file = store.files.add("a", "rows.jsonl", "fine-tune", tmp_path / "rows")["id"]
    method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
    asked = {"model": "tiny", "training_file": file, "seed": 1, "settings": {}, "method": method}
    job = store.jobs.add("a", asked)["id"]
    store.jobs.change(job, status="running", owner="another machine")
    begun = [store.uploads.add("a", "rows.jsonl", "fine-tune", len(ROW), 1 << 20) for _ in range(2)]
    uploads = [row["id"] for row in begun]
    part = store.uploads.add_part(uploads[0], tmp_path / "rows")
    assert part is not None
    with serving(engine, Words(tiny_tokenizer), {"tiny": None}, tmp_path, require_key=True) as url:
        yield Place(url, keys, store, file, job, uploads, part["id"])
    store.close()


def test_every_route_is_in_the_matrix(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    engine = Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)
    config = ServeConfig(folder=str(tmp_path))
    store = open_store(config)
    app = create_app(
        Worker(engine, 1), Words(tiny_tokenizer), config, {"tiny": None}, store, Workshop(Config())
    )
    store.close()
    found = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            rights = [getattr(one.call, "right", None) for one in route.dependant.dependencies]
            for method in route.methods:
                found[route.path, method] = next(filter(None, rights), None)
    assert found.keys() == LEAST.keys()
    for key, right in found.items():
        least = LEAST[key]
        allowed = {role for role in ROLES if right is None or right in RIGHTS[role]}
        assert allowed == set(ROLES[ROLES.index(least) :] if least else ROLES), key


def asked_of(place: Place, path: str, method: str) -> tuple[str, dict[str, Any]]:
    """Return the path of a thing that is there, and a request that is in order."""
    id_ = place.job if "fine_tuning" in path else place.file
    if "uploads" in path:
        id_ = place.uploads[1 if path.endswith("/parts") else 0]
    real = path.replace("{id_}", id_).replace("{name:path}", "tiny")
    more: dict[str, Any] = {}
    if path in BODIES:
        more = {"json": BODIES[path]}
    elif (path, method) == ("/v1/files", "POST"):
        more = {"files": {"file": ("x.jsonl", ROW)}, "data": {"purpose": "fine-tune"}}
    elif (path, method) == ("/v1/fine_tuning/jobs", "POST"):
        more = {"json": {"model": "tiny", "training_file": place.file}}
    elif path.endswith("/parts"):
        more = {"files": {"data": ROW}}
    elif path.endswith("/complete"):
        more = {"json": {"part_ids": [place.part]}}
    return real, more


@pytest.mark.parametrize(("path", "method"), [key for key, least in LEAST.items() if least])
def test_roles_and_foreign_projects(place: Place, path: str, method: str) -> None:
    real, more = asked_of(place, path, method)
    least = LEAST[path, method]
    assert least is not None
    for key in (None, "tz-wrong", "sk-other", "tz-" + "0" * 16 + "-" + "A" * 43):
        assert place.ask(method, real, key, **more).status_code == 401
    for role in ROLES[: ROLES.index(least)]:
        refused = place.ask(method, real, role, **more)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "insufficient_permissions"
    if "{id_}" in path:  # another project's admin sees nothing there is to see
        assert place.ask(method, real, "foreign", **more).status_code == 404
    if method == "GET" and path.endswith(("/files", "/jobs")):
        assert place.ask(method, real, "foreign").json()["data"] == []
    if (path, method) == ("/v1/fine_tuning/jobs", "POST"):
        foreign = place.ask(method, real, "foreign", **more)
        assert foreign.json()["error"]["code"] == "file_not_found"
    allowed = place.ask(method, real, least, **more)
    status, why = NEVER.get((path, method), (200, ""))
    assert allowed.status_code == status, allowed.text
    assert why in allowed.text


def test_a_key_ends(place: Place) -> None:
    short = place.store.keys.add("short", role="viewer", days=2 / 86_400)
    assert place.ask("GET", "/v1/models", short).status_code == 200
    id_ = place.keys["viewer"].split("-")[1]
    assert place.store.keys.revoke(id_)
    assert not place.store.keys.revoke(id_)
    assert place.ask("GET", "/v1/models", "viewer").status_code == 401
    time.sleep(2.5)
    assert place.ask("GET", "/v1/models", short).status_code == 401


def test_keys_are_not_in_the_database(place: Place, tmp_path: Path) -> None:
    held = b"".join(path.read_bytes() for path in tmp_path.glob("server.sqlite*"))
    for key in place.keys.values():
        secret = key.split("-", 2)[2].encode()
        assert secret not in held


def test_requests_and_tokens_are_limited(place: Place) -> None:
    few = place.store.keys.add("few", role="viewer", requests_per_minute=3)
    assert [place.ask("GET", "/v1/models", few).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = place.ask("GET", "/v1/models", few)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    thrifty = place.store.keys.add("thrifty", role="user", tokens_per_minute=6)
    answers = [place.ask("POST", "/v1/chat/completions", thrifty, json=CHAT) for _ in range(9)]
    used = [a.json()["usage"]["total_tokens"] for a in answers if a.status_code == 200]
    assert 6 <= sum(used) < 6 + used[0] + 1  # the last answer may go over
    assert answers[-1].status_code == 429
    streamed = place.store.keys.add("streamed", role="user", tokens_per_minute=1)
    asked = {**CHAT, "stream": True}
    assert place.ask("POST", "/v1/chat/completions", streamed, json=asked).text.endswith("[DONE]\n\n")
    assert place.ask("POST", "/v1/chat/completions", streamed, json=asked).status_code == 429


def test_the_trail_tells_who_changed_what_and_who_was_turned_away(place: Place) -> None:
    place.ask("GET", "/v1/files", "viewer")
    place.ask("DELETE", f"/v1/files/{place.file}", "viewer")
    place.ask("DELETE", f"/v1/files/{place.file}", "trainer")
    place.ask("POST", "/v1/fine_tuning/jobs", None, json={})
    entries = place.store.trail.list("a", limit=10).rows
    told = [(row["key"], row["method"], row["path"], row["status"]) for row in reversed(entries)]
    path = f"/v1/files/{place.file}"
    ids = {role: key.split("-")[1] for role, key in place.keys.items()}
    assert told == [(ids["viewer"], "DELETE", path, 403), (ids["trainer"], "DELETE", path, 200)]


def test_bounds_of_bodies_names_and_projects(place: Place, tmp_path: Path) -> None:
    large = {**CHAT, "messages": [{"role": "user", "content": "x" * (17 << 20)}]}
    assert place.ask("POST", "/v1/chat/completions", "user", json=large).status_code == 413
    sent = {"file": ("../../etc/passwd\u202e.jsonl", ROW)}
    made = place.ask("POST", "/v1/files", "trainer", files=sent, data={"purpose": "fine-tune"})
    assert "/" not in made.json()["filename"]
    assert place.ask("GET", f"/v1/files/{made.json()['id']}/content", "trainer").content == ROW
    empty = place.ask(
        "POST", "/v1/files", "trainer", files={"file": ("a", b"")}, data={"purpose": "fine-tune"}
    )
    assert empty.json()["error"]["code"] == "empty_file"
