"""Metrics read by Prometheus' own parser, the log of requests, and an end that drops nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import serving
from tanzim.infer.engine import Engine
from tanzim.infer.kernels import PAGE
from tanzim.serve.config import RequestLogConfig, ServeConfig
from tanzim.serve.observe import requests
from tanzim.serve.observe.afterwards import Afterwards
from tanzim.serve.observe.metrics import Metrics
from tanzim.serve.observe.requests import RequestLog
from tanzim.serve.reply import Tally
from tanzim.serve.store.store import open_store
from tanzim.serve.worker import Worker

ASKED: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "the quick brown fox jumps over the lazy dog"}],
    "max_tokens": 24,
    "temperature": 0,
}


class Words:
    """A renderer of the words alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: Any, tools: Any = ()) -> list[int]:
        return self._tokenizer.encode("".join(turn.content for turn in messages), add_special_tokens=False)


@pytest.fixture
def engine(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Engine:
    return Engine(tiny_model, tiny_tokenizer, stop_ids=[2], base_hash="0" * 64)


def test_metrics_are_what_was_done(engine: Engine, tmp_path: Path) -> None:
    with closing(open_store(ServeConfig(folder=str(tmp_path)))) as store:
        method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
        asked = {"model": "tiny", "training_file": "file-x", "seed": 1, "settings": {}, "method": method}
        store.jobs.change(store.jobs.add("a", asked)["id"], status="paused", owner="another machine")
    with serving(engine, Words(engine.tokenizer), {"tiny": None}, tmp_path) as url:
        chat = f"{url}/v1/chat/completions"
        usages = [httpx.post(chat, json=ASKED).json()["usage"] for _ in range(3)]
        httpx.post(chat, json={**ASKED, "stream": True})
        httpx.post(chat, json={**ASKED, "model": "none"})
        httpx.get(f"{url}/v1/files/file-{'x' * 40}")
        httpx.request("XXXXMADEUP", f"{url}/v1/files")
        # A stream is counted when it is closed, which its reader sees a moment before.
        end = time.monotonic() + 60
        whole = 'tanzim_requests_total{method="POST",route="/v1/chat/completions",status="200"} 4.0'
        while whole not in (text := httpx.get(f"{url}/metrics").text) and time.monotonic() < end:
            time.sleep(0.01)
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    route = ("route", "/v1/chat/completions")
    assert found["tanzim_requests_total", ("method", "POST"), route, ("status", "200")] == 4
    assert found["tanzim_requests_total", ("method", "POST"), route, ("status", "404")] == 1
    # What a client writes in a path never becomes a label.
    files = ("route", "/v1/files/{id_}")
    assert found["tanzim_requests_total", ("method", "GET"), files, ("status", "404")] == 1
    assert "xxxx" not in text
    assert "XXXX" not in text
    model = ("model", "tiny")
    for kind, name in (("prompt", "prompt_tokens"), ("answer", "completion_tokens")):
        assert found["tanzim_tokens_total", ("kind", kind), model] == 4 * usages[0][name]
    assert [usage == usages[0] for usage in usages] == [True] * 3
    # The first prompt was computed; the three others after it knew its full pages.
    full = (usages[0]["prompt_tokens"] - 1) // PAGE * PAGE
    assert full > 0
    assert found["tanzim_tokens_total", ("kind", "cached"), model] == 3 * full
    for each in ("time_to_first_token", "queue", "time_per_output_token"):
        assert found[f"tanzim_{each}_seconds_count", model] == 4
    assert found["tanzim_request_seconds_count", route] == 5
    # A token's time, over all but the first, and the wait for the first: within that of the whole requests.
    spent = found["tanzim_request_seconds_sum", route]
    each = found["tanzim_time_per_output_token_seconds_sum", model] / 4
    parts = each * (usages[0]["completion_tokens"] - 1) * 4 + found["tanzim_queue_seconds_sum", model]
    assert 0 < parts < spent
    assert 0 < found["tanzim_time_to_first_token_seconds_sum", model] < spent
    assert found["tanzim_requests_running", ("of", "answers")] == 0
    assert found["tanzim_requests_waiting", ("of", "answers")] == 0
    assert found["tanzim_adapters", ("of", "loaded")] == found["tanzim_adapters", ("of", "known")] == 0
    assert found["tanzim_cache_tokens", ("of", "held")] == 0
    assert found["tanzim_cache_tokens", ("of", "room")] % PAGE == 0
    assert found["tanzim_lost_total", ("what", "request_log")] == 0
    assert found["tanzim_jobs", ("of", "paused")] == 1


@pytest.mark.parametrize("texts", ["none", "redacted", "whole"])
def test_the_log_keeps_as_much_as_it_may(engine: Engine, tmp_path: Path, texts: str) -> None:
    asked = {**ASKED, "messages": [{"role": "user", "content": "write to sara@example.com now"}]}
    with serving(
        engine, Words(engine.tokenizer), {"tiny": None}, tmp_path, request_log={"texts": texts}
    ) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked).json()
    (path,) = (tmp_path / "requests").glob("*.jsonl")
    (line,) = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert line["id"] == answer["id"]
    assert line["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert line["answer_tokens"] == answer["usage"]["completion_tokens"]
    assert ("prompt" in line) == (texts != "none")
    assert ("sara@example.com" in path.read_text()) == (texts == "whole")
    assert ("[EMAIL_ADDRESS]" in path.read_text()) == (texts == "redacted")


class Day:
    """A clock that the test sets."""

    def __init__(self, day: str) -> None:
        self.set(day)

    def set(self, day: str) -> None:
        self.now = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@contextmanager
def logging_to(
    folder: Path,
    clock: Callable[[], float] = time.time,
    pause: float = 3600,
    most: int = 1 << 20,
    **settings: Any,
) -> Iterator[tuple[RequestLog, list[int]]]:
    afterwards, lost = Afterwards(most, pause), [0]

    def lose() -> None:
        lost[0] += 1

    log = RequestLog(RequestLogConfig(**settings), folder, afterwards, lose, clock)
    afterwards.start()
    yield log, lost
    afterwards.stop()


def lines_of(folder: Path) -> list[Any]:
    paths = sorted((folder / "requests").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_log_draws_a_share(tmp_path: Path) -> None:
    with logging_to(tmp_path, sample=0.25) as (log, lost):
        for number in range(2000):
            log.add({"number": number}, "", "")
    drawn = [line["number"] for line in lines_of(tmp_path)]
    assert drawn == sorted(set(drawn))
    assert 400 < len(drawn) < 600  # five standard deviations
    assert lost == [0]
    with logging_to(tmp_path / "other", sample=0) as (log, _):
        log.add({}, "", "")
    assert not (tmp_path / "other").exists()


def test_the_log_forgets_old_days(tmp_path: Path) -> None:
    def days() -> list[str]:
        return sorted(path.name.removesuffix(".jsonl") for path in (tmp_path / "requests").iterdir())

    def wait_for(expected: list[str]) -> None:
        end = time.monotonic() + 60
        while days() != expected and time.monotonic() < end:
            time.sleep(0.01)
        assert days() == expected

    clock = Day("2024-02-28T23:59:59")
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "2023-01-01.jsonl").write_text("{}\n")
    (tmp_path / "requests" / "notes.jsonl").write_text("{}\n")
    with logging_to(tmp_path, clock, pause=0.01, days=2) as (log, _):
        wait_for(["notes"])  # at the start, before anything is asked
        log.add({"n": 1}, "", "")
        wait_for(["2024-02-28", "notes"])
        clock.set("2024-02-29T00:00:00")  # a leap day
        log.add({"n": 2}, "", "")
        clock.set("2024-03-01T12:00:00")
        log.add({"n": 3}, "", "")
        wait_for(["2024-02-28", "2024-02-29", "2024-03-01", "notes"])  # two days and today
        clock.set("2024-03-02T00:00:01")
        wait_for(["2024-02-29", "2024-03-01", "notes"])  # though nobody asks anything
    assert [line["n"] for line in lines_of(tmp_path) if "n" in line] == [2, 3]


def test_what_waits_is_written_at_the_end_and_never_by_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, writers = threading.Event(), set()

    def slow(text: str) -> str:
        release.wait(60)
        writers.add(threading.current_thread().name)
        return text

    monkeypatch.setattr(requests, "keeper", lambda texts: slow)
    with logging_to(tmp_path, texts="redacted") as (log, lost):
        for number in range(50):
            log.add({"number": number}, "prompt", "answer")
        assert lines_of(tmp_path) == []
        threading.Timer(0.05, release.set).start()
    assert [line["number"] for line in lines_of(tmp_path)] == list(range(50))
    assert writers == {"tanzim-afterwards"}
    assert lost == [0]


def test_what_finds_no_room_is_counted_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(requests, "keeper", lambda texts: lambda text: [release.wait(60), text][1])
    with logging_to(tmp_path, most=10_000, texts="whole") as (log, lost):
        for number in range(8):  # each takes up to 4 bytes a character, and its line
            log.add({"number": number}, "x" * 500, "")
        release.set()
    kept = [line["number"] for line in lines_of(tmp_path)]
    assert kept == [0, 1, 2]
    assert lost == [5]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "5 lines are lost" in caplog.records[1].getMessage()


def test_a_full_disk_is_told_once_and_answers_go_on(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    today = datetime.now(UTC).date()
    (tmp_path / "requests").mkdir()
    # /dev/full takes nothing: each write to it fails as on a full disk.
    for day in (today, today + timedelta(days=1)):  # the test may run at midnight
        (tmp_path / "requests" / f"{day}.jsonl").symlink_to("/dev/full")
    with serving(engine, Words(engine.tokenizer), {"tiny": None}, tmp_path) as url:
        for _ in range(3):
            assert httpx.post(f"{url}/v1/chat/completions", json=ASKED).status_code == 200
        end = time.monotonic() + 60
        while 'tanzim_lost_total{what="request_log"} 3.0' not in (text := httpx.get(f"{url}/metrics").text):
            assert time.monotonic() < end, text
            time.sleep(0.01)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "No space left on device" in caplog.text
        for path in (tmp_path / "requests").iterdir():
            path.unlink()  # there is room again
        last = httpx.post(f"{url}/v1/chat/completions", json=ASKED).json()
    assert [line["id"] for line in lines_of(tmp_path)] == [last["id"]]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_no_half_lines_on_a_disk_that_becomes_full(tmp_path: Path) -> None:
    """In a process whose files may have 100 bytes: what Linux writes of a line that is longer goes again."""
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from tanzim.core.run import append_line\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "path = Path(sys.argv[1])\n"
        "append_line(path, 'x' * 60)\n"
        "try:\n"
        "    append_line(path, 'y' * 60)\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
        "append_line(path, 'z' * 20)\n"
    )
    path = tmp_path / "lines.jsonl"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "No space left" in done.stdout
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == ["x", "z"]


def test_answers_under_way_are_finished_when_the_server_ends(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[httpx.Response] = []
    step = Worker._step
    monkeypatch.setattr(Worker, "_step", lambda self: (time.sleep(0.01), step(self)))
    with serving(engine, Words(engine.tokenizer), {"tiny": None}, tmp_path) as url:
        asked = {**ASKED, "max_tokens": 200, "stop": ["never there"]}

        def ask() -> None:
            got.append(httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        running = r'tanzim_requests_running\{of="answers"\} (\d+)'
        while True:  # until all are under way, but for those that were quicker than the look at them
            found = re.search(running, httpx.get(f"{url}/metrics", timeout=60).text)
            if len(got) + int(found[1] if found else 0) >= 4:
                break
            time.sleep(0.005)
    for client in clients:
        client.join()
    assert [answer.status_code for answer in got] == [200] * 4
    assert all(answer.json()["choices"][0]["finish_reason"] in ("stop", "length") for answer in got)


def test_the_metrics_name_no_project_s_models() -> None:
    metrics = Metrics(dict, ["tiny"])
    for model in ("tiny", "ft:tiny:secret:a:1", "ft:tiny:secret:b:2"):
        metrics.count(Tally("chatcmpl", model, 3), time.perf_counter())
    text = metrics.text().decode()
    assert 'tanzim_tokens_total{kind="prompt",model="tiny"} 3.0' in text
    assert 'tanzim_tokens_total{kind="prompt",model="other"} 6.0' in text
    assert "secret" not in text
