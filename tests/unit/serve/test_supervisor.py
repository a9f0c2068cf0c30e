"""What the supervisor of jobs does with what processes leave; the processes themselves are played."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from helpers import s3
from tanzim.core.errors import ConfigError
from tanzim.core.files import write_json
from tanzim.serve.config import ServeConfig
from tanzim.serve.jobs.executor import Seen, State
from tanzim.serve.jobs.process import EVENTS, OUTCOME, JobFolder
from tanzim.serve.jobs.supervisor import Supervisor
from tanzim.serve.jobs.work import Order
from tanzim.serve.store.store import Store, open_store

FAILED = {"status": "failed", "code": "job_failed", "message": "it did not learn"}


class Played:
    """An executor whose attempts are as the test says: job → state."""

    lease: float | None = None

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.started: list[str] = []
        self.attempts: list[int] = []
        self.said = ""

    def look(self, folder: JobFolder, attempt: int) -> Seen:
        return Seen(self.states.get(folder.path.name, State.NEW), self.said)

    def start(self, folder: JobFolder, attempt: int, command: list[str]) -> None:
        self.started.append(folder.path.name)
        self.attempts.append(attempt)
        self.states[folder.path.name] = State.ALIVE

    def stop(self, folder: JobFolder, attempt: int) -> None:
        self.states[folder.path.name] = State.GONE

    def release(self) -> None:
        pass


class Shop:
    """A workshop that furnishes nothing."""

    def check(self, order: Order) -> None:
        raise ConfigError("not asked here")

    def furnish(self, order: Order, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def command(self, folder: Path, *_: Any) -> list[str]:
        return ["true"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(ServeConfig(folder=str(tmp_path / "server")))) as made:
        yield made


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def supervisor(store: Store, played: Played) -> Supervisor:
    return Supervisor(store.jobs, store.files, store.root / "jobs", Shop(), played, 2)


def add(store: Store, tmp_path: Path) -> str:
    (tmp_path / "rows").write_text("rows")
    file = store.files.add("a", "rows.jsonl", "fine-tune", tmp_path / "rows")["id"]
    method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
    asked = {"model": "m", "training_file": file, "seed": 1, "method": method, "settings": {}}
    id_: str = store.jobs.add("a", asked)["id"]
    return id_


def leave(store: Store, job: str, steps: int, outcome: dict[str, Any] | None) -> None:
    """Write what a process leaves: its steps, and how it ended."""
    folder = store.root / "jobs" / job
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"kind": "train", "step": n, "steps": steps, "loss": 1 / n, "time": n}) + "\n"
        for n in range(1, steps + 1)
    ]
    (folder / EVENTS).write_text("".join(lines))
    if outcome is not None:
        write_json(folder / OUTCOME, outcome)


def told(store: Store, job: str) -> list[int]:
    rows = store.jobs.events(job, after=None, limit=100_000, oldest_first=True).rows
    return [row["data"]["step"] for row in rows if row["type"] == "metrics"]


def status(store: Store, job: str) -> str:
    row = store.jobs.get("a", job)
    assert row is not None
    return str(row["status"])


def test_all_that_happened_while_nobody_looked_is_told(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    supervisor.look()
    assert played.started == [job]
    leave(store, job, 20_000, FAILED)  # more than is read at a time
    assert (store.root / "jobs" / job / EVENTS).stat().st_size > 1 << 20
    played.states[job] = State.GONE
    supervisor.look()
    assert status(store, job) == "failed"
    assert told(store, job) == list(range(1, 20_001))


def test_a_job_belongs_to_a_folder_on_whatever_machine(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add(store, tmp_path)
    supervisor.look()
    assert played.started == [job]
    elsewhere = Played()
    other = Supervisor(store.jobs, store.files, tmp_path / "other" / "jobs", Shop(), elsewhere, 2)
    other.look()
    assert elsewhere.started == []
    monkeypatch.setattr("socket.gethostname", lambda: "a-new-container")
    again = Supervisor(store.jobs, store.files, store.root / "jobs", Shop(), elsewhere, 2)
    again.look()
    assert elsewhere.started == [job]  # which here has no process any more


def test_a_faulty_job_does_not_keep_the_others_waiting(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = add(store, tmp_path), add(store, tmp_path)
    supervisor.look()
    for job in (bad, good):
        leave(store, job, 3, FAILED)
        played.states[job] = State.GONE
    (store.root / "jobs" / bad / EVENTS).write_text("{half\n")
    for _ in range(3):
        supervisor.look()
    assert (status(store, good), told(store, good)) == ("failed", [1, 2, 3])
    assert status(store, bad) != "failed"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"looking after {bad} failed and is tried again: JSONDecodeError")


def test_a_job_that_cannot_be_found_out_about_does_not_keep_the_others_waiting(
    store: Store,
    supervisor: Supervisor,
    played: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = add(store, tmp_path), add(store, tmp_path)
    look = played.look

    def odd(folder: JobFolder, attempt: int) -> Seen:
        if folder.path.name == bad:
            raise KeyError("odd")
        return look(folder, attempt)

    with monkeypatch.context() as patch:
        patch.setattr(played, "look", odd)
        for _ in range(3):
            supervisor.look()
    assert played.started == [good]
    (record,) = complaints(caplog)
    assert record.getMessage() == f"looking after {bad} failed and is tried again: KeyError: 'odd'"
    assert record.exc_info is not None
    supervisor.look()
    assert played.started == [good, bad]


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "tanzim.serve.jobs.supervisor"]


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    assert done()


def test_no_fault_ends_the_looking(
    store: Store,
    supervisor: Supervisor,
    played: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def odd() -> None:
        raise KeyError("odd")

    assert not supervisor.alive
    with monkeypatch.context() as patch:
        patch.setattr(store.jobs, "unfinished", odd)
        supervisor.start()
        until(lambda: bool(complaints(caplog)))
    job = add(store, tmp_path)
    until(lambda: played.started == [job])
    assert supervisor.alive
    supervisor.stop()
    assert not supervisor.alive
    (record,) = complaints(caplog)
    assert record.getMessage() == "looking after the jobs failed and is tried again: KeyError: 'odd'"
    assert record.exc_info is not None


def test_a_job_waits_for_a_storage_that_is_away(
    tmp_path: Path, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        s3.outage() as storage,
        closing(open_store(ServeConfig(folder=str(tmp_path / "server"), files=storage.place))) as store,
    ):
        job = add(store, tmp_path)
        storage.begin()
        supervisor = Supervisor(store.jobs, store.files, store.root / "jobs", Shop(), played, 2)
        supervisor.start()
        until(lambda: bool(complaints(caplog)))
        assert status(store, job) == "validating_files"
        assert played.started == []
        storage.end()
        until(lambda: played.started == [job])
        supervisor.stop()
        assert (store.root / "jobs" / job / "training.jsonl").read_text() == "rows"
    (record,) = complaints(caplog)
    assert record.getMessage().startswith(f"looking after {job} failed and is tried again: BlobsAwayError")
    assert record.exc_info is None


def test_a_job_is_counted_and_started_only_if_the_database_knows_it(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("the database system is shutting down"))

    job = add(store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store.jobs, "change", away)
        for _ in range(5):
            with pytest.raises(OperationalError):
                supervisor.look()
    assert played.started == []
    supervisor.look()
    assert played.started == [job]
    assert status(store, job) == "validating_files"


def messages(store: Store, job: str) -> list[str]:
    rows = store.jobs.events(job, after=None, limit=1000, oldest_first=True).rows
    return [row["message"] for row in rows]


def test_three_deaths_without_a_checkpoint_end_a_job(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    supervisor.look()
    for attempt in (1, 2, 3, 4):  # the first two times it had got further
        if attempt < 3:
            (store.root / "jobs" / job / "runs" / "r" / "checkpoints" / f"checkpoint-{attempt}").mkdir(
                parents=True
            )
        played.states[job] = State.GONE
        supervisor.look()
        assert status(store, job) == ("failed" if attempt == 4 else "validating_files")
    assert played.attempts == [1, 2, 3, 4]
    error = store.jobs.get("a", job)["error"]["message"]  # type: ignore[index]
    assert error.startswith("the job's process died 3 times without getting further; jobs/ftjob-")
    assert str(tmp_path) not in error


def test_a_death_is_counted_once_however_often_it_is_seen(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert [folder.count_death(attempt) for attempt in (1, 1, 2, 2, 2, 3)] == [1, 1, 2, 2, 2, 3]


def test_who_was_asked_to_pause_did_not_die(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    supervisor.look()
    for _ in range(5):
        store.jobs.want(job, "pause", ("validating_files", "running"))
        supervisor.look()
        supervisor.look()
        assert status(store, job) == "paused"
        store.jobs.want(job, "run", ("paused",))
        supervisor.look()
    assert status(store, job) == "validating_files"
    assert played.attempts == [1, 2, 3, 4, 5, 6]


def test_an_attempt_that_did_not_get_there_is_made_again_and_one_that_had_no_luck_followed(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    for state in (None, State.NEW, State.NEW, State.UNBEGUN, State.UNBEGUN, State.UNBEGUN, State.UNBEGUN):
        if state is not None:
            played.states[job] = state
        supervisor.look()
        assert played.states[job] is State.ALIVE
    assert played.attempts == [1, 1, 1, 2, 3, 4, 5]
    assert messages(store, job).count("Validating training file") == 1
    assert status(store, job) == "validating_files"


def test_what_the_executor_says_is_told_when_it_changes(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    for said in ("", "waits", "waits", "", "waits", "runs"):
        played.said = said
        supervisor.look()
    assert messages(store, job)[2:] == ["waits", "waits", "runs"]
    played.states[job], played.said = State.BARRED, "it cannot run there"
    supervisor.look()
    assert status(store, job) == "failed"
    assert messages(store, job)[5:] == ["The job failed: it cannot run there"]


@pytest.mark.slow
def test_a_process_that_comes_after_the_cancelling_finds_the_end(
    store: Store, supervisor: Supervisor, played: Played, tmp_path: Path
) -> None:
    job = add(store, tmp_path)
    supervisor.look()
    store.jobs.want(job, "cancel", ("validating_files",))
    supervisor.look()
    supervisor.look()
    assert status(store, job) == "cancelled"
    folder = store.root / "jobs" / job
    assert (
        subprocess.run([sys.executable, "-m", "tanzim.pipeline.job", str(folder)], check=False).returncode
        == 0
    )
    assert not (folder / "pid").exists()
