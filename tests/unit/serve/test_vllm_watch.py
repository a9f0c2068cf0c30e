"""What keeps vLLM running: however an attempt fails, another follows, or it is told that none does."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import members, wait_until
from tanzim.core.errors import ModelError
from tanzim.serve.backend import Unavailable
from tanzim.serve.vllm.watch import Watch

# Answers each path with what stands for it in a file, as long as it is there.
PROGRAM = """
import json, sys
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        told = json.load(open(sys.argv[1]))[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_):
        pass

UnixStreamServer(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()
"""
RIGHT = {
    "/health": "",
    "/version": '{"version": "0.32.0"}',
    "/v1/models": '{"data": [{"max_model_len": 512}]}',
}


class Rig:
    """A watch over the program, with what it has said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        self.answers = folder / "answers.json"
        self.watch = self.made(self.said.append)

    def made(self, say: Callable[[str], None]) -> Watch:
        command = [sys.executable, "-c", PROGRAM, str(self.answers)]
        return Watch(command, [], self.folder, start_seconds=300, restarts=2, say=say)

    def answer(self, **other: str) -> None:
        changed = {f"/{path.replace('_', '/')}": told for path, told in other.items()}
        self.answers.write_text(json.dumps(RIGHT | changed))

    @property
    def group(self) -> int:
        return int(json.loads((self.folder / "group.json").read_text())["group"])

    def told(self, text: str) -> Callable[[], bool]:
        return lambda: any(text in line for line in self.said)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.answer()
    yield rig
    rig.watch.stop()


def full(path: Path, value: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("odd", ["", "[]", "{}", "3", '{"version"'])
def test_who_does_not_answer_as_vllm_is_no_vllm(rig: Rig, odd: str) -> None:
    rig.answer(version=odd)
    with pytest.raises(ModelError, match="does not answer /version as vLLM does"):
        rig.watch.launch()
    assert not (rig.folder / "group.json").exists()


@pytest.mark.parametrize("odd", ['{"data": []}', '{"data": [{"max_model_len": "much"}]}', '{"data": [{}]}'])
def test_a_length_that_is_none(rig: Rig, odd: str) -> None:
    rig.answer(v1_models=odd)
    with pytest.raises(ModelError, match="does not answer /v1/models as vLLM does"):
        rig.watch.launch()
    assert not (rig.folder / "group.json").exists()


def test_a_full_disk_leaves_none_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had been started when it could not be written down who it is."""
    started: list[int] = []

    def noted(path: Path, value: Any) -> None:
        started.append(value["group"])
        full(path, value)

    monkeypatch.setattr("tanzim.serve.vllm.process.write_json", noted)
    with pytest.raises(OSError, match="No space left"):
        rig.watch.launch()
    assert len(started) == 1
    assert not members(started[0])


@pytest.mark.parametrize("what", ["disk", "version"])
def test_a_restart_that_fails_is_tried_again(rig: Rig, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.watch.launch()
    rig.watch.start()
    before = rig.group
    if what == "disk":
        monkeypatch.setattr("tanzim.serve.vllm.process.write_json", full)
    else:
        rig.answer(version="{}")
    os.killpg(before, signal.SIGKILL)
    wait_until(rig.told("No space left" if what == "disk" else "does not answer /version"))
    monkeypatch.undo()
    rig.answer()
    wait_until(lambda: rig.watch.ready)
    assert rig.watch.failure is None
    assert rig.watch.lives == 2
    assert rig.watch.context_length == 512
    assert rig.group != before


def test_restarts_that_fail_come_to_an_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tanzim.serve.vllm.process.write_json", full)
    rig.watch.start()  # and none runs
    wait_until(lambda: rig.watch.failure is not None)
    assert sum("No space left" in line for line in rig.said) == 2
    with pytest.raises(Unavailable, match="died 3 times within an hour"):
        asyncio.run(rig.watch.wait())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_fails_is_told(rig: Rig) -> None:
    def mute(line: str) -> None:
        raise RuntimeError(line)

    rig.watch.stop()
    rig.watch = rig.made(mute)
    rig.watch.start()
    wait_until(lambda: rig.watch.failure is not None)
    with pytest.raises(Unavailable, match="watched over no more"):
        asyncio.run(rig.watch.wait())
