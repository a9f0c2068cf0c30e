"""The end of a real server process: what is under way is finished, what comes later is sent away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# A whole server around a random model, each step of which takes a while, so that answers are long under way.
PROGRAM = """
import json, sys, time
from transformers import AutoModelForCausalLM, AutoTokenizer
from helpers.serving import Lines
from tanzim.infer.engine import Engine
from tanzim.pipeline.config import Config
from tanzim.pipeline.workshop import Workshop
from tanzim.serve.app import create_app
from tanzim.serve.config import ServeConfig
from tanzim.serve.server import run_server
from tanzim.serve.store.store import open_store
from tanzim.serve.worker import Worker
step = Worker._step
Worker._step = lambda self: (time.sleep(0.03), step(self))
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
engine = Engine(model, tokenizer, stop_ids=[], base_hash="0" * 64)
config = ServeConfig.model_validate(json.loads(sys.argv[2]))
store = open_store(config)
app = create_app(
    Worker(engine, 4), Lines(tokenizer), config, {"tiny": None}, store, Workshop(Config())
)
run_server(app, config, announce=lambda url: print(url, flush=True))
print("ended", flush=True)
"""
ASKED: dict[str, Any] = {
    "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "temperature": 0,
    "stream": True,
}  # fmt: skip


@pytest.fixture
def model(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@contextmanager
def running(model: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    config = {"folder": str(model.parent / "server"), "port": 0, **settings}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(model), json.dumps(config)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip().removesuffix("/v1")
        finally:
            process.kill()


class Streams:
    """Clients that read streams, each in a thread of its own."""

    def __init__(self, url: str, count: int, **more: Any) -> None:
        self.texts = [""] * count
        self._begun = threading.Barrier(count + 1)
        self._threads = [
            threading.Thread(target=self._read, args=(url, number, more)) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()
        self._begun.wait(120)

    def _read(self, url: str, number: int, more: dict[str, Any]) -> None:
        body = ASKED | more
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as answer:
            parts = answer.iter_text()
            try:
                self.texts[number] += next(parts) + next(parts)
                self._begun.wait(120)
                for part in parts:
                    self.texts[number] += part
            except httpx.TransportError:
                self.texts[number] += "(cut off)"

    def join(self) -> None:
        for thread in self._threads:
            thread.join(120)


def test_streams_are_finished_and_newcomers_sent_away(model: Path) -> None:
    with running(model) as (process, url):
        assert httpx.get(f"{url}/health/ready").json() == {"status": "ready"}
        with httpx.Client(base_url=url, timeout=60) as late:
            late.get("/health")
            streams = Streams(url, 3)
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 60
            while (ready := late.get("/health/ready")).status_code == 200 and time.monotonic() < end:
                pass
            # Some of the streams are under way: they have 60 steps of 30 ms, and it is at most a few later.
            assert (ready.status_code, ready.json()["missing"]) == (503, ["draining"])
            assert late.get("/health").status_code == 200  # nobody needs to restart it
            for way in (late.get, httpx.get):  # on an old connection, and on a new one
                refused = way(url + "/v1/models" if way is httpx.get else "/v1/models")
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.json()["error"]["code"] == "unavailable"
            assert not any("[DONE]" in text for text in streams.texts)
        streams.join()
        assert [text.endswith("data: [DONE]\n\n") for text in streams.texts] == [True] * 3
        assert all('"finish_reason": "length"' in text for text in streams.texts)
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "ended\n"
    log = (model.parent / "server" / "requests").iterdir()
    assert sum(len(path.read_text().splitlines()) for path in log) == 3  # nothing of the log is lost either


def test_patience_ends(model: Path) -> None:
    with running(model, drain_seconds=0.3) as (process, url):
        streams = Streams(url, 1, max_tokens=200)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        streams.join()
        assert "[DONE]" not in streams.texts[0]


@pytest.mark.parametrize("kinds", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(model: Path, kinds: tuple[int, int]) -> None:
    with running(model, drain_seconds=1000) as (process, url):
        streams = Streams(url, 1, max_tokens=200)
        process.send_signal(kinds[0])
        while httpx.get(f"{url}/health/ready").status_code == 200:
            pass
        process.send_signal(kinds[1])
        assert process.wait(60) == -kinds[1]
        streams.join()
        assert "[DONE]" not in streams.texts[0]
