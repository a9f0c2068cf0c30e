"""Spans as a collector gets them, of requests of the unmodified ``openai`` client."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from prometheus_client.parser import text_string_to_metric_families

from helpers.collector import Collector, Span, collecting
from helpers.serving import Lines, serving
from tanzim import __version__
from tanzim.core.config import ConfigError, with_values
from tanzim.infer.engine import Engine
from tanzim.infer.kernels import PAGE
from tanzim.serve.config import ServeConfig
from tanzim.serve.observe import outbox
from tanzim.serve.worker import Worker

MESSAGES: Any = [{"role": "user", "content": "the quick brown fox, sara@example.com"}]
ASK: dict[str, Any] = {
    "model": "tiny",
    "messages": MESSAGES,
    "max_tokens": 12,
    "temperature": 0.5,
    "seed": 3,
}
NAMES = {
    name
    for module in (gen_ai_attributes, error_attributes, http_attributes, server_attributes, url_attributes)
    for name in vars(module).values()
    if isinstance(name, str)
} | {"tanzim.project"}  # fmt: skip


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    with collecting() as found:
        yield found


@contextmanager
def traced(
    engine: Engine, folder: Path, endpoint: str, texts: str = "none", **more: Any
) -> Iterator[openai.OpenAI]:
    traces = {"endpoint": endpoint, "texts": texts}
    names = {"tiny": None, "tuned": "default"}
    with (
        serving(
            engine, Lines(engine.tokenizer), names, folder, traces=traces, max_new_tokens=24, **more
        ) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def check(collector: Collector, span: Span, name: str, fault: str | None = None) -> dict[str, Any]:
    """Check what all spans of requests have in common; return the rest of the attributes."""
    assert span.name == name
    assert span.kind == Proto.SPAN_KIND_SERVER
    assert span.attributes.keys() <= NAMES
    found = dict(span.attributes)
    assert found.pop("error.type", None) == fault
    assert found.pop("http.request.method") == "POST"
    assert found.pop("url.scheme") == "http"
    assert found.pop("http.route") == found.pop("url.path")
    assert found.pop("server.address") == "127.0.0.1"
    assert found.pop("server.port") > 0
    assert found.pop("gen_ai.provider.name") == "tanzim"
    assert found.pop("tanzim.project", "default") == "default"
    end = span.start
    for part in collector.parts(span):
        assert part.trace == span.trace
        assert part.kind == Proto.SPAN_KIND_INTERNAL
        assert end <= part.start <= part.end <= span.end
        end = part.end
    return found


def test_a_chat_whole_and_streamed(engine: Engine, tmp_path: Path, collector: Collector) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    start = time.time_ns()
    with traced(engine, tmp_path, collector.url) as client:
        whole = client.chat.completions.create(
            **ASK, n=2, top_p=0.9, stop=["zzz", "yyy"], extra_headers={"traceparent": parent}
        )
        *chunks, last = client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        )
        unsampled = parent[:-2] + "00"
        client.chat.completions.create(**ASK, extra_headers={"traceparent": unsampled})
    first, second = sorted(collector.wait(2), key=lambda span: span.start)
    assert len(collector.outer()) == 2
    assert (first.trace, first.parent) == tuple(parent.split("-")[1:3])
    assert second.parent == ""
    assert second.trace != first.trace
    assert start <= first.start <= first.end <= second.start <= second.end <= time.time_ns()
    assert whole.usage is not None
    asked = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "tiny", "gen_ai.response.model": "tiny",
        "gen_ai.request.temperature": 0.5, "gen_ai.request.max_tokens": 12, "gen_ai.request.seed": 3,
        "http.response.status_code": 200,
    }  # fmt: skip
    assert check(collector, first, "chat tiny") == asked | {
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": False,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ["zzz", "yyy"],
        "gen_ai.response.id": whole.id,
        "gen_ai.response.finish_reasons": [choice.finish_reason for choice in whole.choices],
        "gen_ai.usage.input_tokens": whole.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": whole.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": first.attributes["gen_ai.usage.cache_read.input_tokens"],
    }
    found = check(collector, second, "chat tiny")
    waited = found.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < waited < (second.end - second.start) / 1e9
    assert last.usage is not None
    # The prompt is the one before; all its full pages but for the last token are known.
    assert found == asked | {
        "gen_ai.request.stream": True,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.response.id": last.id,
        "gen_ai.response.finish_reasons": [chunks[-1].choices[0].finish_reason],
        "gen_ai.usage.input_tokens": last.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": last.usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": (last.usage.prompt_tokens - 1) // PAGE * PAGE,
    }
    for span in (first, second):
        parts = collector.parts(span)
        assert [part.name for part in parts] == ["queue", "prefill", "decode"]
        assert parts[0].end == parts[1].start
        assert parts[1].end == parts[2].start
        assert not any(part.attributes for part in parts)
    assert set(collector.paths) == {"/v1/traces"}
    # All that is told of the server: no name of the machine, no process, no command line.
    assert collector.resource == {"service.name": "tanzim", "service.version": __version__}


def test_the_other_ways_to_ask(engine: Engine, tmp_path: Path, collector: Collector) -> None:
    with traced(engine, tmp_path, collector.url) as client:
        text = client.completions.create(model="tiny", prompt=["the", "fox"], max_tokens=3, temperature=0)
        response = client.responses.create(model="tiny", input="the", max_output_tokens=3, temperature=0)
        vectors = client.embeddings.create(model="tiny", input=["the", "quick fox"])
        client.models.list()
    spans = sorted(collector.wait(3), key=lambda span: span.start)
    assert len(spans) == 3
    texts, chat, embedded = (
        check(collector, span, name)
        for span, name in zip(spans, ["text_completion tiny", "chat tiny", "embeddings tiny"], strict=True)
    )
    assert text.usage is not None
    assert texts["gen_ai.request.choice.count"] == 2
    assert texts["gen_ai.usage.input_tokens"] == text.usage.prompt_tokens
    assert texts["gen_ai.response.finish_reasons"] == [choice.finish_reason for choice in text.choices]
    assert chat["gen_ai.response.id"] == response.id
    assert chat["gen_ai.response.finish_reasons"] == ["length"]
    assert embedded["gen_ai.usage.input_tokens"] == vectors.usage.prompt_tokens
    assert not any("output" in name or "cache" in name for name in embedded)


@pytest.mark.parametrize("texts", ["none", "redacted", "whole"])
def test_texts_only_as_far_as_asked_for(
    engine: Engine, tmp_path: Path, collector: Collector, texts: str
) -> None:
    call: Any = {
        "id": "c1",
        "type": "function",
        "function": {"name": "mail", "arguments": '{"to": "ali@x.com"}'},
    }
    turns = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sent to ali@x.com"},
    ]
    with traced(engine, tmp_path, collector.url, texts) as client:
        answer = client.chat.completions.create(**{**ASK, "messages": turns}, n=2)
    (span,) = collector.wait(1)
    told = str(span.attributes)
    assert ("quick" in told) == (texts != "none")
    assert ("sara@example.com" in told) == ("ali@x.com" in told) == (texts == "whole")
    if texts == "none":
        assert not any("messages" in name for name in span.attributes)
        return
    asked = json.loads(span.attributes["gen_ai.input.messages"])
    assert [turn["role"] for turn in asked] == ["user", "assistant", "tool"]
    assert [part["type"] for turn in asked for part in turn["parts"]] == [
        "text", "tool_call", "tool_call_response",
    ]  # fmt: skip
    said = json.loads(span.attributes["gen_ai.output.messages"])
    assert [turn["finish_reason"] for turn in said] == [choice.finish_reason for choice in answer.choices]
    if texts == "whole":
        assert asked[0]["parts"][0]["content"] == MESSAGES[0]["content"]
        assert [turn["parts"][0]["content"] for turn in said] == [c.message.content for c in answer.choices]


def test_refusals_and_failures(
    engine: Engine, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with traced(engine, tmp_path, collector.url) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**ASK, "model": "none"})
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{**ASK, "messages": []})
        monkeypatch.setattr(type(engine.server(1)), "step", fail)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ASK)
        with pytest.raises(openai.APIError, match="out of memory"):
            list(client.chat.completions.create(**ASK, stream=True))
    spans = sorted(collector.wait(4), key=lambda span: span.start)
    expected = [
        ("chat none", "model_not_found", 404, Status.STATUS_CODE_UNSET),  # the client's mistakes
        ("chat", "invalid_value", 400, Status.STATUS_CODE_UNSET),
        ("chat tiny", "WorkerError", 500, Status.STATUS_CODE_ERROR),
        ("chat tiny", "WorkerError", 200, Status.STATUS_CODE_ERROR),  # in the middle of a stream
    ]
    for span, (name, fault, status, code) in zip(spans, expected, strict=True):
        found = check(collector, span, name, fault)
        assert found["http.response.status_code"] == status
        assert span.status == code


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up(
    engine: Engine, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    step = Worker._step
    steps = 0

    def slow(self: Worker) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.02)
        step(self)

    monkeypatch.setattr(Worker, "_step", slow)
    with traced(engine, tmp_path, collector.url) as client:
        asked = {**ASK, "model": "tiny", "max_tokens": 150, "stop": ["never there"], "stream": stream}
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as raw:
            body = httpx.Request("POST", "http://x", json=asked).content
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            raw.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            while steps < 4:
                time.sleep(0.01)
        end = time.monotonic() + 60
        metrics = str(client.base_url.join("/metrics"))
        while 'requests_running{of="answers"} 0.0' not in httpx.get(metrics).text and time.monotonic() < end:
            time.sleep(0.02)
    (span,) = collector.wait(1)
    found = check(collector, span, "chat tiny", "client_disconnected")
    assert span.status == Status.STATUS_CODE_UNSET
    assert found["gen_ai.usage.output_tokens"] < 150
    assert "gen_ai.response.finish_reasons" not in found
    assert [part.name for part in collector.parts(span)] == ["queue", "prefill", "decode"]


def test_a_dead_collector_disturbs_nobody_and_is_told_once(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lost = 0.0
    with traced(engine, tmp_path, f"http://127.0.0.1:{port}") as client:
        end = time.monotonic() + 60
        while lost < 8 and time.monotonic() < end:  # four spans each; in several attempts
            client.chat.completions.create(**ASK)
            metrics = httpx.get(str(client.base_url.join("/metrics"))).text
            families = text_string_to_metric_families(metrics)
            samples = [s for family in families for s in family.samples if s.name == "tanzim_lost_total"]
            lost = sum(s.value for s in samples if s.labels == {"what": "traces"})
    assert lost >= 8
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in told] == ["tanzim.serve"]
    assert f"127.0.0.1:{port}" in told[0].getMessage()


def test_a_collector_that_never_answers_does_not_hold_the_end_up(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, release, answered = threading.Event(), threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.set()
            release.wait(60)
            answered.set()

    monkeypatch.setattr(outbox, "FLUSH", 0.1)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with traced(engine, tmp_path, f"http://127.0.0.1:{server.server_address[1]}") as client:
            client.chat.completions.create(**ASK)
            assert asked.wait(60)
            client.chat.completions.create(**ASK)
        assert not answered.is_set()  # the server has ended, and the collector has still not answered
        release.set()
        server.shutdown()
        thread.join()


def test_what_the_operator_sets_in_the_environment(
    engine: Engine, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer of-the-test")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")  # the config alone says where to
    with traced(engine, tmp_path, collector.url + "/") as client:
        client.chat.completions.create(**ASK)
    collector.wait(1)
    assert {name.lower(): value for name, value in collector.headers.items()}["authorization"] == (
        "Bearer of-the-test"
    )
    named = {"service.name": "ours", "deployment.environment.name": "test", "service.version": __version__}
    assert collector.resource == named


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "http://me:secret@host", "ftp://host", "http://h?key=1"]
)
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        with_values(ServeConfig(), {"traces.endpoint": endpoint}, where="serve")
