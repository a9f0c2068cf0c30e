"""A collector that speaks OTLP over HTTP, on a free port of this machine, and decodes what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass
class Span:
    """A span as it came."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    status: int
    attributes: dict[str, Any]


@dataclass
class Collector:
    """What has come so far, and how it answers."""

    port: int = 0
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, count: int, seconds: float = 60) -> list[Span]:
        """Return the spans, when there are so many of requests (spans without a parent among them)."""
        with self.came:
            there = self.came.wait_for(lambda: len(self.outer()) >= count, seconds)
            assert there, self.spans
        return self.outer()

    def outer(self) -> list[Span]:
        """Return the spans that are no part of another one that came."""
        own = {span.id for span in self.spans}
        return [span for span in self.spans if span.parent not in own]

    def parts(self, span: Span) -> list[Span]:
        """Return the spans in a span, in the order of their beginnings."""
        return sorted((one for one in self.spans if one.parent == span.id), key=lambda one: one.start)

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self.came:
            for resource in request.resource_spans:
                self.resource = {one.key: value(one.value) for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [
                        Span(
                            one.name,
                            one.trace_id.hex(),
                            one.span_id.hex(),
                            one.parent_span_id.hex(),
                            one.kind,
                            one.start_time_unix_nano,
                            one.end_time_unix_nano,
                            one.status.code,
                            {pair.key: value(pair.value) for pair in one.attributes},
                        )
                        for one in scope.spans
                    ]
            self.came.notify_all()


def value(given: AnyValue) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in given.array_value.values]
    return getattr(given, str(kind))


@contextmanager
def collecting() -> Iterator[Collector]:
    """Yield a collector that runs for the time of a test."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.append(self.path)
            collector.headers = dict(self.headers.items())
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            if collector.status == 200:
                plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                collector.take(ExportTraceServiceRequest.FromString(plain))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
