"""Metrics read by Prometheus' own parser, the log of requests, and an end that drops nothing."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.serving import serving
from tanzim.infer.engine import Engine
from tanzim.serve.config import RequestLogConfig
from tanzim.serve.observe.requests import RequestLog
from tanzim.serve.worker import Worker

ASKED: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "the quick brown fox"}],
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
    with serving(engine, Words(engine.tokenizer), {"tiny": None}, tmp_path) as url:
        chat = f"{url}/v1/chat/completions"
        usages = [httpx.post(chat, json=ASKED).json()["usage"] for _ in range(3)]
        httpx.post(chat, json={**ASKED, "stream": True})
        httpx.post(chat, json={**ASKED, "model": "none"})
        httpx.get(f"{url}/v1/files/file-{'x' * 40}")
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
    for kind, name in (("prompt", "prompt_tokens"), ("answer", "completion_tokens")):
        counted = found["tanzim_tokens_total", ("kind", kind), ("model", "tiny")]
        assert counted == 4 * usages[0][name]
    assert [usage == usages[0] for usage in usages] == [True] * 3
    assert found["tanzim_time_to_first_token_seconds_count", ("model", "tiny")] == 4
    assert found["tanzim_request_seconds_count", route] == 5
    assert found["tanzim_requests_running", ("of", "answers")] == 0


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


def test_the_log_draws_a_share_and_forgets_old_days(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in (1, 2, 3, 400)]
    (tmp_path / "requests").mkdir()
    for day in days:
        (tmp_path / "requests" / f"{day}.jsonl").write_text("{}\n")
    log = RequestLog(RequestLogConfig(sample=0.25, days=2), tmp_path)
    for number in range(2000):
        log.add({"number": number}, "", "")
    assert {p.stem for p in (tmp_path / "requests").iterdir()} == {str(today), str(days[0]), str(days[1])}
    kept = len((tmp_path / "requests" / f"{today}.jsonl").read_text().splitlines())
    assert 400 < kept < 600  # five standard deviations
    RequestLog(RequestLogConfig(sample=0), tmp_path / "other").add({}, "", "")
    assert not (tmp_path / "other").exists()


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
