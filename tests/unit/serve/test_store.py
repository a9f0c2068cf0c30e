"""The server's store on SQLite and a folder, and on a real PostgreSQL and an S3 server: the same."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from helpers import s3
from helpers.postgres import PASSWORD, local_postgres
from tanzim.core.errors import ConfigError, DataError
from tanzim.serve.config import ServeConfig
from tanzim.serve.store.backup import backup, restore
from tanzim.serve.store.blobs import BlobsAwayError, open_blobs
from tanzim.serve.store.database import open_database, writing
from tanzim.serve.store.quota import FullError
from tanzim.serve.store.store import Store, open_store
from tanzim.serve.store.tables import metadata

ASKED: dict[str, Any] = {
    "model": "m",
    "training_file": "file-1",
    "seed": 1,
    "method": {"type": "supervised"},
    "settings": {},
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with local_postgres() as server:
        yield server.url().replace("postgresql+psycopg", "postgresql")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3.serving() as address:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="server")
        yield "s3://server/files"


@pytest.fixture(params=["sqlite and a folder", "postgresql and s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    config = ServeConfig(folder=str(tmp_path / "server"))
    if request.param != "sqlite and a folder":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        database, place = request.getfixturevalue("postgres"), request.getfixturevalue("bucket")
        config = ServeConfig(folder=str(tmp_path / "server"), database=database, files=place)
    with closing(open_store(config)) as made:
        yield made
        with writing(made.database) as connection:
            metadata.drop_all(connection)
            connection.exec_driver_sql("DROP TABLE alembic_version")


def test_the_migrations_make_the_tables_that_are_used(store: Store) -> None:
    with store.database.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_migrations_can_be_undone(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/x.sqlite")
    with writing(engine) as connection:
        config = Config(attributes={"connection": connection})
        folder = Path(open_database.__code__.co_filename).parent / "migrations"
        config.set_main_option("script_location", str(folder))
        command.downgrade(config, "base")
        left = (
            connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        )
    assert set(left) <= {"alembic_version"}
    engine.dispose()


def test_files_are_kept_listed_and_forgotten(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "f"
    made = []
    for number in range(5):
        path.write_bytes(b"x" * number)
        made.append(store.files.add("a", f"{number}.jsonl", "fine-tune", path)["id"])
    path.write_bytes(b"other")
    store.files.add("b", "other", "fine-tune", path)
    with pytest.raises(FullError):
        store.files.add("a", "more", "fine-tune", path, 14)
    listed, after = [], None
    while True:
        page = store.files.list("a", purpose=None, after=after, limit=2, oldest_first=True)
        listed += [row["id"] for row in page.rows]
        if not page.more:
            break
        after = listed[-1]
    assert listed == made
    newest = store.files.list("a", purpose="fine-tune", after=None, limit=2, oldest_first=False)
    assert [row["id"] for row in newest.rows] == made[:2:-1]
    with store.files.open(made[4]) as stream:
        assert stream.read() == b"xxxx"
    assert store.files.get("b", made[4]) is None
    assert not store.files.delete("b", made[4])
    assert store.files.delete("a", made[4])
    with pytest.raises(FileNotFoundError):
        store.files.open(made[4])


def test_a_storage_that_is_away_is_told_from_a_key_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    with s3.outage() as storage:
        blobs = open_blobs(storage.place)
        blobs.put("kept", tmp_path / "f")
        stream = blobs.open("kept")
        storage.begin()
        for call in (
            lambda: blobs.put("more", tmp_path / "f"),
            lambda: blobs.open("kept"),
            lambda: blobs.delete("kept"),
            lambda: stream.read(1),
        ):
            with pytest.raises(BlobsAwayError, match="cannot be used"):
                call()
        stream.close()
        storage.end()
        with pytest.raises(FileNotFoundError):
            blobs.open("more")
        with blobs.open("kept") as again:
            assert again.read() == b"x" * 100
        blobs.delete("kept")
        blobs.delete("kept")
        with pytest.raises(FileNotFoundError):
            blobs.open("kept")


def test_a_job_is_taken_by_one_of_many(store: Store) -> None:
    job = store.jobs.add("a", ASKED)["id"]
    took: list[int] = []
    start = threading.Barrier(8)

    def take(number: int) -> None:
        start.wait()
        if store.jobs.take(job, f"machine {number}"):
            took.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 1
    assert store.jobs.take(job, f"machine {took[0]}")


def test_events_and_the_place_in_the_log_are_kept_together(store: Store) -> None:
    job = store.jobs.add("a", ASKED)["id"]
    lines = [
        {"message": f"step {n}", "type": "metrics", "data": {"step": n}, "created_at": n} for n in (1, 2)
    ]
    store.jobs.progress(job, lines, (0, 80))
    store.jobs.progress(job, lines, (0, 80))  # a server that is just going has read the same
    with pytest.raises(TypeError):  # a faulty line: neither it nor the place is kept
        store.jobs.progress(job, [{"message": "step 3", "nothing": 1}], (80, 120))
    told = [row["message"] for row in store.jobs.events(job, after=None, limit=10).rows]
    assert told == ["step 2", "step 1", f"Created fine-tuning job: {job}"]
    row = store.jobs.get("a", job)
    assert row is not None
    assert row["read_bytes"] == 80


def succeed(store: Store, job: str, tmp_path: Path) -> bool:
    """End a job as its supervisor does."""
    (tmp_path / "table").write_text("step,train_loss\n")
    result = store.files.bring("a", "step_metrics.csv", "fine-tune-results", tmp_path / "table")
    made = {"id": "ft:m:a::1", "adapter": f"jobs/{job}/adapter", "step": 3, "metrics": {}}
    return store.jobs.succeed(job, [made], result)


def test_what_a_client_was_told_of_a_job_stays(store: Store, tmp_path: Path) -> None:
    cancelled, ended = store.jobs.add("a", ASKED)["id"], store.jobs.add("a", ASKED)["id"]
    among = ("validating_files", "queued", "running", "paused")
    assert store.jobs.want(cancelled, "cancel", among)
    assert not store.jobs.want(cancelled, "run", among)
    assert not store.jobs.want(cancelled, "pause", among)
    assert not succeed(store, cancelled, tmp_path)  # it was just done when it was cancelled
    store.jobs.fail(cancelled, {"code": "x", "message": "y", "param": None})
    row = store.jobs.get("a", cancelled)
    assert row is not None
    assert (row["status"], row["wanted"], row["error"]) == ("validating_files", "cancel", None)
    assert store.models.all("a") == []
    assert store.files.list("a", purpose=None, after=None, limit=9, oldest_first=True).rows == []

    assert succeed(store, ended, tmp_path)
    assert not succeed(store, ended, tmp_path)  # by a server that is just going
    (row,) = store.files.list("a", purpose=None, after=None, limit=9, oldest_first=True).rows
    assert row["filename"] == "step_metrics.csv"
    assert not store.jobs.want(ended, "cancel", among)


def test_an_error_repeats_whatever_signs_a_client_wrote(store: Store) -> None:
    job = store.jobs.add("a", ASKED)["id"]
    store.jobs.progress(job, [{"message": "a\0\x1b[31m", "type": "message"}], (0, 40))
    said = "line 1: a key stands twice ('\0', '\ud800', 'نمی\u200cخواهم')\nline 2: so it does\there"
    store.jobs.fail(job, {"code": "x", "message": said, "param": None})
    row = store.jobs.get("a", job)
    assert row is not None
    shown = "line 1: a key stands twice ('\\u0000', '\\ud800', 'نمی\u200cخواهم')\nline 2: so it does\there"
    assert (row["status"], row["error"]["message"]) == ("failed", shown)
    messages = [row["message"] for row in store.jobs.events(job, after=None, limit=2).rows]
    assert messages == [f"The job failed: {shown}", "a\\u0000\\u001b[31m"]


def read(store: Store, id_: str) -> bytes:
    with store.files.open(id_) as stream:
        return stream.read()


def age(store: Store) -> None:
    """Let all that is under way have begun two hours ago."""
    long_ago = time.time() - 7200
    for path in (*store.root.rglob("unsettled/*/*"), *store.root.glob(".upload-*")):
        os.utime(path, (long_ago, long_ago))


def test_what_was_cut_off_is_swept_away(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "f"
    path.write_bytes(b"rows")
    kept = store.files.add("a", "kept", "fine-tune", path)["id"]
    half = store.files.bring("a", "half", "fine-tune", path)["id"]  # bytes without a row
    gone = store.files.add("a", "gone", "fine-tune", path)["id"]
    upload = store.uploads.add("a", "f", "fine-tune", 8, 100)
    assert upload is not None
    part = store.uploads.add_part(upload["id"], path)
    assert part is not None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.files._blobs._blobs, "delete", pull)
        store.files.delete("a", gone)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store.uploads, "_forget", pull)
        store.uploads.end(upload["id"], "cancelled")
    (store.root / ".upload-x").mkdir()
    assert store.files.get("a", gone) is None

    store.tidy()  # too early for all but the parts
    assert read(store, half) == read(store, gone) == b"rows"
    with pytest.raises(FileNotFoundError):
        store.uploads.join([part["id"]], tmp_path / "joined")
    age(store)
    store.files._blobs.mark(f"files/{kept}")  # the plug was pulled after the row was written
    age(store)
    store.tidy()
    for id_ in (half, gone):
        with pytest.raises(FileNotFoundError):
            read(store, id_)
    assert read(store, kept) == b"rows"
    assert not (store.root / ".upload-x").exists()
    assert [path for path in (store.root / "unsettled").rglob("*") if path.is_file()] == []


def test_only_a_file_of_ours_is_marked(store: Store, tmp_path: Path) -> None:
    for id_ in ("../../outside", "file-1", ""):
        assert not store.files.delete("a", id_)
    assert not (store.root / "unsettled").exists()
    assert not (store.root.parent / "outside").exists()


def test_a_backup_restores_into_another_kind_of_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"rows")
    file = store.files.add("a", "f.jsonl", "fine-tune", tmp_path / "f")["id"]
    key = store.keys.add("k", role="trainer", project="a")
    ended, unfinished = store.jobs.add("a", ASKED)["id"], store.jobs.add("a", ASKED)["id"]
    adapter = store.root / "jobs" / ended / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "weights").write_bytes(b"w")
    succeed(store, ended, tmp_path)
    store.jobs.take(unfinished, "here")
    store.jobs.progress(unfinished, [{"message": "step 1", "type": "metrics"}], (0, 40), 99)
    counts = backup(store, tmp_path / "all.tar")
    assert counts["files"] == 2
    assert counts["jobs"] == 2
    with closing(open_store(ServeConfig(folder=str(tmp_path / "new")))) as new:
        assert restore(new, tmp_path / "all.tar") == counts
        with new.files.open(file) as stream:
            assert stream.read() == b"rows"
        caller = new.keys.caller(key)
        assert caller is not None
        assert (caller.project, caller.role) == ("a", "trainer")
        model = new.models.get("a", "ft:m:a::1")
        assert model is not None
        assert (new.root / model["adapter"] / "weights").read_bytes() == b"w"
        (again,) = new.jobs.unfinished()
        assert (again["id"], again["owner"], again["read_bytes"]) == (unfinished, None, 0)
        assert [r["type"] for r in new.jobs.events(unfinished, after=None, limit=9).rows] == ["message"]
        with pytest.raises(ConfigError, match="not empty"):
            restore(new, tmp_path / "all.tar")


def test_a_file_deleted_while_the_backup_is_made_is_not_half_restored(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"rows")
    first, second = (store.files.add("a", "f", "fine-tune", tmp_path / "f")["id"] for _ in range(2))

    def delete(done: float, *_: object) -> None:
        if done == 1:
            store.files.delete("a", second)

    backup(store, tmp_path / "all.tar", progress=delete)
    with closing(open_store(ServeConfig(folder=str(tmp_path / "new")))) as new:
        assert restore(new, tmp_path / "all.tar")["files"] == 1
        assert read(new, first) == b"rows"
        assert new.files.get("a", second) is None


def test_a_model_deleted_while_the_backup_is_made_is_not_half_restored(store: Store, tmp_path: Path) -> None:
    job = store.jobs.add("a", ASKED)["id"]
    adapter = store.root / "jobs" / job / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "weights").write_bytes(b"w")
    succeed(store, job, tmp_path)

    def delete(*_: object) -> None:
        if store.models.delete("a", "ft:m:a::1"):
            shutil.rmtree(adapter)

    backup(store, tmp_path / "all.tar", progress=delete)  # told after the files, before the adapters
    with closing(open_store(ServeConfig(folder=str(tmp_path / "new")))) as new:
        assert restore(new, tmp_path / "all.tar")["models"] == 0
        assert new.models.all("a") == []


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 10_240])
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with (
        closing(open_store(ServeConfig(folder=str(tmp_path / "new")))) as new,
        pytest.raises(DataError, match="no backup"),
    ):
        restore(new, tmp_path / "bad")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/name", "no database URL"),
        ("nonsense", "no database URL"),
        ("postgresql://owner:wr0ng@127.0.0.1:1/x", "cannot be used"),
        ("sqlite:////proc/nothing/x.sqlite", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        open_database(url)
    assert "wr0ng" not in str(caught.value)
