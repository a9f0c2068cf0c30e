"""Metrics in Prometheus' format: requests, times, tokens, queues, jobs.

Specification: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tanzim.serve.reply import Tally

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "other"  # in place of what clients could make any number of
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one server.

    Args:
        now: reads what is counted only when somebody looks: gauge → label → value.
        models: those that everybody may know of; all others, which are a project's own, are counted as one.

    """

    def __init__(
        self, now: Callable[[], Mapping[str, Mapping[str, float]]], models: Collection[str] = ()
    ) -> None:
        self._models = frozenset(models)
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tanzim_requests", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "tanzim_request_seconds",
            "Time until an answer was complete.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.first_token = Histogram(
            "tanzim_time_to_first_token_seconds",
            "Time until the first text of an answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.waited = Histogram(
            "tanzim_queue_seconds",
            "Time until a prompt began to be computed.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.each_token = Histogram(
            "tanzim_time_per_output_token_seconds",
            "Time between two tokens of an answer, on the average of the answer.",
            ["model"],
            buckets=_TOKEN_SECONDS,
            registry=self._registry,
        )
        self.tokens = Counter(
            "tanzim_tokens",
            "Tokens of prompts (cached: those of them that were known from others) and answers.",
            ["model", "kind"],
            registry=self._registry,
        )
        self.lost = Counter(
            "tanzim_lost", "Lines of the request log and spans not kept.", ["what"], registry=self._registry
        )
        self._registry.register(_Now(now))

    def count(self, answer: Tally, start: float) -> None:
        """Count an answer that has ended.

        Args:
            answer: what it came to.
            start: when it was begun, as `time.perf_counter` has it.

        """
        model = answer.model if answer.model in self._models else OTHER
        if answer.first_text is not None:
            self.first_token.labels(model).observe(answer.first_text - start)
        for times in answer.times:
            if times.begun:
                self.waited.labels(model).observe(times.begun - times.asked)
            if times.tokens > 1:
                self.each_token.labels(model).observe((times.last - times.first) / (times.tokens - 1))
        known = sum(times.known for times in answer.times)
        for kind, count in (
            ("prompt", answer.prompt_tokens), ("cached", known), ("answer", answer.answer_tokens),
        ):  # fmt: skip
            self.tokens.labels(model, kind).inc(count)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    """Gauges that are read when somebody looks."""

    def __init__(self, now: Callable[[], Mapping[str, Mapping[str, float]]]) -> None:
        self._now = now

    def describe(self) -> Iterable[Metric]:
        return []  # else they would be read once at the start, before the database is there

    def collect(self) -> Iterable[Metric]:
        for name, values in self._now().items():
            family = GaugeMetricFamily(
                f"tanzim_{name}", name.replace("_", " ").capitalize() + ".", labels=["of"]
            )
            for label, value in values.items():
                family.add_metric([label], value)
            yield family


class Measure:
    """Counts requests by the route they took, never by what a client wrote in a path.

    Args:
        app: the application.
        metrics: where to.

    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
