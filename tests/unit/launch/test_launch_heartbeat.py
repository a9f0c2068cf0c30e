"""Who fell silent, whose stacks say where, and who is named for the end of a job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tanzim.core.errors import DataError, TrainError
from tanzim.core.records import Json
from tanzim.launch.blame import LostRank, blame, hung
from tanzim.launch.heartbeat import Beat, Heartbeat, beats, dump_stacks, failed, forget, silent

SLEEPER = """
import sys, time
from pathlib import Path
from tanzim.launch.heartbeat import Heartbeat

def the_place_it_hangs_in():
    time.sleep(60)

heart = Heartbeat(Path(sys.argv[1]), 1)
heart.beat("working", 4, [f"a.jsonl, row {n}" for n in range(1, 11)])
the_place_it_hangs_in()
"""


def beat(rank: int, phase: str = "working", at: float = 0.0, **more: object) -> Beat:
    return Beat(rank, 100 + rank, "here", phase, 7, (f"a.jsonl, row {rank}",), at=at, **more)  # type: ignore[arg-type]


def error(kind: str, what: str) -> Json:
    return {"kind": kind, "what": what, "where": "w", "fix": "f"}


def test_the_one_that_works_too_long_is_to_blame_and_not_those_who_wait() -> None:
    found = [beat(0, "waiting", 10), beat(1, "working", 5), beat(2, "waiting", 10), beat(3, "done", 1)]
    assert silent(found, 100, now=104) == []
    assert [b.rank for b in silent(found, 100, now=106)] == [1]


def test_preparing_has_no_limit_and_waiting_twice_the_limit() -> None:
    assert silent([beat(0, "preparing"), beat(1, "finishing")], 1, now=1e6) == []
    found = [beat(0, "waiting", 10), beat(1, "preparing", 0)]
    assert silent(found, 100, now=209) == []
    assert [b.rank for b in silent(found, 100, now=211)] == [0]


def test_beats_are_read_back_with_their_samples(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path, 0)
    heart.beat("working", 3, ["a.jsonl, row 1"])
    heart.beat("waiting")
    (found,) = beats(tmp_path)
    assert (found.rank, found.phase, found.step, found.samples) == (0, "waiting", 3, ("a.jsonl, row 1",))
    assert abs(time.monotonic() - found.at) < 60
    failed(tmp_path, 0, DataError("bad", where="a.jsonl, row 2", fix="mend it"))
    (found,) = beats(tmp_path)
    assert (found.phase, found.step) == ("failed", 3)
    assert found.error == {"kind": "DataError", "what": "bad", "where": "a.jsonl, row 2", "fix": "mend it"}
    forget(tmp_path, [0])
    assert not list(tmp_path.iterdir())


def test_a_silent_process_writes_where_it_hangs(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path)])
    try:
        while not (found := [b for b in beats(tmp_path) if b.phase == "working"]):
            time.sleep(0.02)
        time.sleep(0.1)
        stacks = dump_stacks(tmp_path, found)
        said = hung(found, stacks, found[0].at + 12)
        assert "rank 1 has been silent for 12 s in step 4, on a.jsonl, row 1; " in said.what
        assert said.what.endswith("a.jsonl, row 8; and 2 more")
        assert said.where == str(tmp_path / "rank-1.stack")
        assert "the_place_it_hangs_in" in (tmp_path / "rank-1.stack").read_text()
    finally:
        process.kill()
        process.wait()


def test_a_stopped_process_is_said_to_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tanzim.launch.heartbeat.STACK_SECONDS", 0.3)
    process = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path)])
    try:
        while not (found := [b for b in beats(tmp_path) if b.phase == "working"]):
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        stacks = dump_stacks(tmp_path, found)
        assert stacks == {1: None}
        assert "its process is stopped" in str(hung(found, stacks, 0).where)
    finally:
        process.kill()
        process.wait()


def test_what_a_rank_says_of_itself_comes_first(tmp_path: Path) -> None:
    found = [
        beat(0, "failed", 9, error=error("LostRank", "the others are gone")),
        beat(1, "failed", 8, error=error("DataError", "bad row")),
    ]
    failures = [{"rank": 0, "pid": 1, "exitcode": 1}, {"rank": 1, "pid": 2, "exitcode": 1}]
    told = blame(found, failures, tmp_path)
    assert type(told) is DataError
    assert (told.what, told.where, told.fix) == ("rank 1: bad row", "w", "f")


def test_what_all_say_is_nobodys(tmp_path: Path) -> None:
    found = [beat(rank, "failed", rank, error=error("TrainError", "interrupted")) for rank in (0, 1)]
    assert blame(found, [], tmp_path).what == "interrupted"


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ({0: 1, 1: -9}, "rank 1 was killed by SIGKILL in step 7, on a.jsonl, row 1"),
        ({0: -15, 1: -11}, "rank 1 was killed by SIGSEGV in step 7"),
        # torchrun ends with SIGTERM those that are left.
        ({0: -15, 1: 3}, "rank 1 crashed (exit code 3) in step 7"),
        ({0: -15}, "rank 0 was killed by SIGTERM in step 7, on a.jsonl, row 0"),
    ],
)
def test_a_signal_tells_more_than_a_crash(codes: dict[int, int], said: str, tmp_path: Path) -> None:
    failures = [{"rank": rank, "pid": 1, "exitcode": code} for rank, code in codes.items()]
    told = blame([beat(0), beat(1)], failures, tmp_path)
    assert type(told) is TrainError
    assert told.what.startswith(said)


def test_a_rank_that_lost_the_others_is_not_blamed_for_it(tmp_path: Path) -> None:
    found = [beat(0, "failed", error=error(LostRank.__name__, "gone")), beat(1)]
    failures = [{"rank": 0, "pid": 1, "exitcode": 1}, {"rank": 1, "pid": 2, "exitcode": 1}]
    assert blame(found, failures, tmp_path).what.startswith("rank 1 crashed")


def test_a_job_that_never_began(tmp_path: Path) -> None:
    assert "before its first rank began" in blame([], [], tmp_path).what
