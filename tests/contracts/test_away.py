"""A database or storage that is away, a disk that is full: said as it is, and nothing confirmed is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helpers import s3
from helpers.disk import fill, small_disk_at
from helpers.postgres import PASSWORD, local_postgres
from helpers.serving import Lines, serving
from tanzim.infer.engine import Engine
from tanzim.serve.jobs.supervisor import Supervisor

NAMES = {"tiny": None, "tuned": "default"}
ASKED = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 4,
    "temperature": 0,
}
PURPOSE = {"purpose": "fine-tune"}


def upload(client: httpx.Client, content: bytes) -> httpx.Response:
    return client.post("/v1/files", files={"file": ("f", content)}, data=PURPOSE)


def until_ready(client: httpx.Client, status: int) -> None:
    end = time.monotonic() + 60
    while client.get("/health/ready").status_code != status and time.monotonic() < end:
        time.sleep(0.05)
    assert client.get("/health/ready").status_code == status


def test_while_postgresql_is_away(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with (
        local_postgres() as postgres,
        serving(engine, Lines(engine.tokenizer), NAMES, tmp_path, database=postgres.url()) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        kept = upload(client, b"rows").json()["id"]
        answer = client.post("/v1/chat/completions", json=ASKED).json()["choices"]
        postgres.kill()
        for refused in (
            upload(client, b"more"),
            client.get("/v1/files"),
            client.delete(f"/v1/files/{kept}"),
            client.get(f"/v1/files/{kept}/content"),
            client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": kept}),
        ):
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "unavailable"
        # What needs no database goes on.
        assert client.post("/v1/chat/completions", json=ASKED).json()["choices"] == answer
        assert client.get("/health").status_code == 200
        until_ready(client, 503)
        missing = {"status": "not ready", "missing": ["database"]}  # and no address, user or reason
        assert client.get("/health/ready").json() == missing
        postgres.start()
        until_ready(client, 200)
        postgres.run("UPDATE alembic_version SET version_num = 'another'")
        until_ready(client, 503)
        assert client.get(f"/v1/files/{kept}/content").content == b"rows"
        assert [one["id"] for one in client.get("/v1/files").json()["data"]] == [kept]
        assert upload(client, b"more").status_code == 200


def test_while_s3_is_away(engine: Engine, tmp_path: Path) -> None:
    with (
        s3.outage() as storage,
        serving(engine, Lines(engine.tokenizer), NAMES, tmp_path, files=storage.place) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        kept = upload(client, b"rows").json()["id"]
        storage.begin()
        for refused in (upload(client, b"more"), client.get(f"/v1/files/{kept}/content")):
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "unavailable"
            assert "outage" not in refused.text  # the bucket's name
        assert [one["id"] for one in client.get("/v1/files").json()["data"]] == [kept]
        assert client.post("/v1/chat/completions", json=ASKED).status_code == 200
        until_ready(client, 200)
        storage.end()
        assert client.get(f"/v1/files/{kept}/content").content == b"rows"
        assert upload(client, b"more").status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_is_sent_where_nobody_looks_after_the_jobs(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_: Supervisor) -> None:
        raise SystemExit  # ends its thread

    with (
        serving(engine, Lines(engine.tokenizer), NAMES, tmp_path) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        until_ready(client, 200)
        monkeypatch.setattr(Supervisor, "look", leave)
        until_ready(client, 503)
        assert client.get("/health/ready").json() == {"status": "not ready", "missing": ["jobs"]}


def test_what_is_not_in_the_trail_is_not_confirmed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away between a change and its entry."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with (
        local_postgres() as postgres,
        serving(engine, Lines(engine.tokenizer), NAMES, tmp_path, database=postgres.url()) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        postgres.run(
            "CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'",
            "CREATE TRIGGER gone BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION gone()",
        )
        refused = upload(client, b"rows")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "retry-after" in refused.headers


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of its own, of 4 MB."""
    with small_disk_at(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk(engine: Engine, small_disk: Path) -> None:
    with (
        serving(engine, Lines(engine.tokenizer), NAMES, small_disk / "server") as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        kept = upload(client, b"rows").json()["id"]
        answer = client.post("/v1/chat/completions", json=ASKED).json()["choices"]
        for leave in (600_000, 40_000, 0):
            fill(small_disk, leave)
            refused = upload(client, os.urandom(400_000))
            assert refused.status_code == 507, refused.text
            assert refused.json()["error"]["code"] == "storage_full"
            assert client.get(f"/v1/files/{kept}/content").content == b"rows"
            assert client.post("/v1/chat/completions", json=ASKED).json()["choices"] == answer
            (small_disk / "ballast").unlink()
        assert [one["id"] for one in client.get("/v1/files").json()["data"]] == [kept]
        assert [path.name for path in (small_disk / "server" / "files").iterdir()] == [kept]
        assert list((small_disk / "server").glob(".upload-*")) == []
        assert upload(client, b"more").status_code == 200
