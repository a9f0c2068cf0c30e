"""Preparations that are killed, stopped, or lose a worker: the same command goes on to the same dataset."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tanzim.core.errors import DataError
from tanzim.data.config import DataConfig
from tanzim.data.executor import Local, told
from tanzim.data.prepare import prepare

SCRIPT = Path(__file__).with_name("slowed_prepare.py")
ROWS = 4000


def rows_file(path: Path, count: int = ROWS) -> Path:
    rng = random.Random(3)
    words = ["".join(rng.choices("abcdefghijkمن‌یکدر", k=5)) for _ in range(300)]
    lines = [json.dumps({"text": " ".join(rng.choices(words, k=rng.randint(3, 25)))}) for _ in range(count)]
    lines[7::50] = lines[6::50]  # repeats
    lines[11] = "{"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config_file(folder: Path, workers: int = 2) -> Path:
    folder.mkdir()
    path = folder / "tanzim.yaml"
    steps = [{"type": "length", "min_characters": 40}, {"type": "dedup_exact"}]
    data = {"path": str(rows_file(folder.parent / "rows.jsonl")), "steps": steps, "workers": workers}
    path.write_text(json.dumps({"name": "one", "runs_dir": str(folder / "runs"), "data": data}))
    return path


def start(config: Path, slowed: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "data", "prepare", str(config)],
        env={**os.environ, "SLOWED": slowed, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def result(config: Path) -> dict[str, bytes]:
    data = config.parent / "runs" / "one" / "data"
    names = ("train.arrow", "validation.arrow", "test.arrow", "rejected.jsonl")
    return {name: (data / name).read_bytes() for name in names}


def below(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, task.read_text().split())
    return found[1:]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("slowed", "parts"), [("step", "length-*"), ("reading", "read-*")])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_the_same_command_goes_on_to_the_same_dataset(
    slowed: str, parts: str, stop: signal.Signals, tmp_path: Path
) -> None:
    config = config_file(tmp_path / "a")
    cache = tmp_path / "a" / "runs" / ".steps"
    process = start(config, slowed)

    def done() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in cache.glob(f"{parts}/part-*.json")}

    until(lambda: len(done()) >= 3, process)
    workers = below(process.pid)
    if stop == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, stop)  # as a terminal does: to every process of the group
    _, err = process.communicate(timeout=60)
    before = done()
    assert not list(cache.glob(f"{parts}/done.json"))
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert err.strip() == "stopped; the same command goes on from here"
    end = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))

    again = start(config)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err
    assert before.items() <= done().items()  # what was done was not done again
    data = tmp_path / "a" / "runs" / "one" / "data"
    assert not [p.name for p in data.iterdir() if p.name.startswith(".")]
    found = result(config)
    other = config_file(tmp_path / "b")
    process = start(other)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert found == result(other)


@pytest.mark.slow
def test_a_killed_worker_is_one_clear_line(tmp_path: Path) -> None:
    config = config_file(tmp_path / "a")
    cache = tmp_path / "a" / "runs" / ".steps"
    process = start(config, "step")
    until(lambda: bool(list(cache.glob("length-*/part-*.json"))), process)
    leaves = [pid for pid in below(process.pid) if not below(pid) and is_alive(pid)]
    os.kill(leaves[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: a worker process was killed" in err
    assert "the same command goes on" in " ".join(err.split())
    assert "Traceback" not in err


def _double(number: int) -> int:
    if number == 13:
        raise DataError("thirteen")
    return 2 * number


def test_every_task_is_done_once_and_errors_arrive_as_they_are() -> None:
    tasks = [*range(10)]
    for workers in (1, 2):
        assert dict(Local(workers).map(_double, tasks)) == {n: 2 * n for n in tasks}
        with pytest.raises(DataError, match="thirteen"):
            list(Local(workers).map(_double, [12, 13, 14]))


def _through(rows: int) -> int:
    return sum(1 for _ in told(range(rows)))


def test_workers_tell_how_many_rows_they_have_got_through() -> None:
    for workers in (1, 2):
        heard: list[int] = []
        assert dict(Local(workers).map(_through, [50, 7, 0, 63], heard.append)) == {0: 50, 1: 7, 2: 0, 3: 63}
        assert heard == sorted(heard)
        assert heard[-1] == 120


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_ray_gives_the_same_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a local Ray of two workers; an error of a step arrives as it is, any other as one line."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    path = rows_file(tmp_path / "rows.jsonl", 25_000)
    steps = [{"type": "length", "min_characters": 40}, {"type": "dedup_exact"}]
    reports = {
        engine: prepare(
            DataConfig.model_validate({"path": str(path), "steps": steps, "engine": engine, "workers": 2}),
            tmp_path / engine,
            seed=3,
        )
        for engine in ("local", "ray")
    }
    assert reports["ray"].fingerprints == reports["local"].fingerprints
    assert reports["ray"].rows_read == 25_000
    for name in ("train.arrow", "validation.arrow", "test.arrow", "rejected.jsonl"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    from tanzim.data.executor import open_executor

    executor = open_executor("ray", 2)
    try:
        with pytest.raises(DataError, match="thirteen"):
            list(executor.map(_double, [12, 13, 14]))
        with pytest.raises(DataError, match=r"Ray gave up: .*TypeError"):
            list(executor.map(_double, ["x", None]))  # type: ignore[list-item]
    finally:
        executor.close()
