"""The lease on a job's folder, with real processes: killed, stopped, cut off from their storage."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tanzim.serve.jobs import lease
from tanzim.serve.jobs.lease import LOST, leased

# Holds the lease for a while, and writes down when it began and ended; to a clock that all processes share.
HOLDER = """
import sys, time
from pathlib import Path
from tanzim.serve.jobs.lease import leased
folder, seconds, hold = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
with leased(folder, seconds) as waited:
    begun = time.monotonic()
    print("holds", waited, flush=True)
    time.sleep(hold)
    with (folder / "held").open("a") as out:
        print(begun, time.monotonic(), file=out)
"""


def holder(folder: Path, seconds: float, hold: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), str(seconds), str(hold)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def waited(process: subprocess.Popen[str]) -> float:
    """Wait until a process holds the lease; return how long it had waited."""
    assert process.stdout is not None
    word, seconds = process.stdout.readline().split()
    assert word == "holds"
    return float(seconds)


def end(process: subprocess.Popen[str]) -> int:
    with process:
        try:
            return process.wait(60)
        finally:
            process.kill()


def test_many_who_want_it_have_it_one_after_another(tmp_path: Path) -> None:
    processes = [holder(tmp_path, 15, 0.05) for _ in range(4)]
    assert [end(process) for process in processes] == [0] * 4  # each let go: nobody waited for the term
    held = sorted(tuple(map(float, line.split())) for line in (tmp_path / "held").read_text().splitlines())
    assert len(held) == 4
    assert all(before[1] < after[0] for before, after in itertools.pairwise(held))
    assert sorted(path.name for path in (tmp_path / "lease").iterdir()) == ["1", "2", "3", "4"]


def test_of_those_who_come_at_once_one_has_it(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(5)]
    for folder in folders:
        folder.mkdir()
    together = threading.Barrier(20)

    def take(folder: Path) -> str:
        together.wait()
        return lease._take(folder / "lease", 0.5).name  # and writes nothing: the next waits for half a second

    with ThreadPoolExecutor(20) as threads:
        taken = list(threads.map(take, folders * 4))
    for number in range(5):
        assert sorted(taken[number::5]) == ["1", "2", "3", "4"]


def test_one_that_sees_another_in_its_place_ends_itself(tmp_path: Path) -> None:
    process = holder(tmp_path, 3, 600)
    waited(process)
    (tmp_path / "lease" / "2").touch()
    assert end(process) == LOST


def test_one_that_was_killed_is_waited_for(tmp_path: Path) -> None:
    first = holder(tmp_path, 2, 600)
    waited(first)
    first.kill()
    end(first)
    # The holder's own term counts, not what the next one would grant.
    with leased(tmp_path, 0.2) as seconds:
        assert seconds > 2


def test_one_that_was_stopped_has_lost_it_when_it_wakes(tmp_path: Path) -> None:
    first = holder(tmp_path, 2, 600)
    waited(first)
    os.kill(first.pid, signal.SIGSTOP)
    with leased(tmp_path, 2) as seconds:
        assert seconds > 2
        os.kill(first.pid, signal.SIGCONT)
        assert end(first) == LOST
    assert not (tmp_path / "held").exists()


def test_one_without_its_storage_ends_itself(tmp_path: Path) -> None:
    process = holder(tmp_path, 2, 600)
    waited(process)
    (tmp_path / "lease").rename(tmp_path / "away")
    start = time.monotonic()
    assert end(process) == LOST
    assert time.monotonic() - start > 1  # a moment's absence is none


def test_without_a_term_it_is_held_only_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_USUAL", 0.5)
    with leased(tmp_path, None) as seconds:
        assert seconds == 0
    assert list(tmp_path.iterdir()) == []
    with leased(tmp_path, 0.5):
        pass
    with leased(tmp_path, None):
        assert (tmp_path / "lease" / "2").exists()
