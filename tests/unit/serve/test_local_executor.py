"""Processes of jobs on this machine: real ones, which only sleep."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tanzim.serve.jobs.executor import State
from tanzim.serve.jobs.local import LocalExecutor
from tanzim.serve.jobs.process import JobFolder

SLEEP = ["/bin/sleep", "600"]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[list[JobFolder]]:
    made = [JobFolder(tmp_path / name) for name in "ab"]
    yield made
    for folder in made:
        if folder.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(folder.pid, signal.SIGKILL)


def states(executor: LocalExecutor, folders: list[JobFolder], attempt: int) -> list[State]:
    found = [executor.look(folder, attempt).state for folder in folders]
    executor.release()
    return found


def until(executor: LocalExecutor, folders: list[JobFolder], wanted: list[State]) -> None:
    end = time.monotonic() + 20
    while (found := states(executor, folders, 1)) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    assert found == wanted


def test_jobs_started_in_one_look_end_one_by_one(folders: list[JobFolder]) -> None:
    executor = LocalExecutor()
    assert [executor.look(folder, 0).state for folder in folders] == [State.NEW, State.NEW]
    for folder in folders:
        executor.start(folder, 1, SLEEP)
    executor.release()
    assert states(executor, folders, 1) == [State.ALIVE, State.ALIVE]
    first, second = folders
    assert first.pid is not None
    assert second.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    until(executor, folders, [State.GONE, State.ALIVE])
    os.kill(second.pid, signal.SIGKILL)
    until(executor, folders, [State.GONE, State.GONE])


def test_a_process_ends_where_the_server_was_started_with_sigchld_ignored(folders: list[JobFolder]) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        executor, folder = LocalExecutor(), folders[0]
        assert states(executor, [folder], 0) == [State.NEW]
        executor.look(folder, 0)
        executor.start(folder, 1, SLEEP)
        executor.release()
        assert states(executor, [folder], 1) == [State.ALIVE]
        assert folder.pid is not None
        os.kill(folder.pid, signal.SIGKILL)
        until(executor, [folder], [State.GONE])
    finally:
        signal.signal(signal.SIGCHLD, before)
