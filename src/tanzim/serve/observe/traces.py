"""A span for each request that asks a model, with spans in it for waiting, reading the prompt, and writing.

Specification: OpenTelemetry's conventions for generative AI,
https://github.com/open-telemetry/semantic-conventions-genai, and for HTTP servers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tanzim.core.optional import need
from tanzim.core.records import Json
from tanzim.infer.request import Times
from tanzim.serve.config import TracesConfig
from tanzim.serve.observe.afterwards import Afterwards
from tanzim.serve.observe.outbox import Outbox
from tanzim.serve.observe.seen import Seen
from tanzim.serve.observe.texts import Keep, keeper
from tanzim.serve.reply import Tally

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
GONE = "client_disconnected"
_SPAN = 1 << 12  # bytes of a span besides its texts
Attributes = dict[str, Any]


@dataclass(slots=True)
class _Http:
    """What HTTP says of a request.

    Args:
        path: asked for.
        scheme: http or https.
        server: address and port that it came to.
        headers: the client's traceparent and tracestate.
        start_ns: when it came, in nanoseconds since 1970.
        start: likewise, as `time.perf_counter` has it.
        status: of the answer.
        end: when the answer had left, as `time.perf_counter` has it.

    """

    path: str
    scheme: str
    server: tuple[str, int | None]
    headers: dict[str, str]
    start_ns: int
    start: float
    status: int = 500
    end: float = 0.0

    def at(self, moment: float) -> int:
        """Return a moment of `time.perf_counter` in nanoseconds since 1970."""
        return self.start_ns + int((moment - self.start) * 1e9)


class Traces:
    """Makes spans of what has been seen.

    Args:
        config: where they go, and whether texts are in them.
        afterwards: does the work.
        lost: told how many spans could not be delivered.

    Raises:
        MissingExtra: the extra ``traces`` (or ``screen``, for redacted texts) is not installed.

    """

    def __init__(self, config: TracesConfig, afterwards: Afterwards, lost: Callable[[int], None]) -> None:
        self._outbox = Outbox(config.endpoint, lost)
        self._afterwards, self._lost = afterwards, lost
        self._keep = keeper(config.texts)
        self._api: Any = need("opentelemetry.trace", "traces")
        propagation = need("opentelemetry.trace.propagation.tracecontext", "traces")
        self._parent = propagation.TraceContextTextMapPropagator().extract

    def close(self) -> None:
        """Deliver what is there, for a few seconds at most."""
        self._outbox.close()

    def add(self, http: _Http, known: Seen) -> None:
        """Have the span of a request made.

        Args:
            http: what HTTP says of it.
            known: what was seen of it.

        """
        size = _SPAN
        if self._keep is not None and known.answer is not None:
            size += 4 * sum(map(len, (known.said, *known.answer.texts)))
        if not self._afterwards.put(partial(self._make, http, known), size):
            self._lost(1)

    def _make(self, http: _Http, known: Seen) -> None:
        operation = OPERATIONS[http.path]
        tracer = self._outbox.tracer
        span = tracer.start_span(
            f"{operation} {known.model}" if known.model else operation,
            context=self._parent(http.headers),
            kind=self._api.SpanKind.SERVER,
            attributes=_asked(http, known, operation) | _answered(http, known),
            start_time=http.start_ns,
        )
        if span.is_recording():
            if self._keep is not None and known.answer is not None:
                span.set_attributes(_texts(known.said, known.answer, self._keep))
            # A client's mistake is no error of the server's; one in the middle of a stream has status 200.
            if http.status >= 500 or (http.status < 400 and known.fault not in (None, GONE)):
                span.set_status(self._api.StatusCode.ERROR)
            inside = self._api.set_span_in_context(span)
            for name, start, end in _parts(known.answer.times if known.answer else [], http.end):
                part = tracer.start_span(name, context=inside, start_time=http.at(start))
                part.end(http.at(end))
        span.end(http.at(http.end))


class Trace:
    """Has a span made of each request that asks a model, when its answer has left or its client has.

    Args:
        app: the application.
        traces: makes it.

    """

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and look at it."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in OPERATIONS:
            await self._app(scope, receive, send)
            return
        known = scope.setdefault("state", {})["seen"] = Seen()
        given = {name: value for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}
        http = _Http(
            scope["path"],
            scope["scheme"],
            scope.get("server") or ("", None),
            {name.decode(): value.decode("latin-1") for name, value in given.items()},
            time.time_ns(),
            time.perf_counter(),
        )
        complete = False

        async def noted(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start":
                http.status = message["status"]
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BaseException as error:
            known.fault = type(error).__name__
            raise
        finally:
            if known.fault is None and known.answer is not None:
                known.fault = known.answer.fault_name
            if http.status == 499 or (known.fault is None and not complete):
                known.fault = GONE
            http.end = time.perf_counter()
            self._traces.add(http, known)


def _asked(http: _Http, known: Seen, operation: str) -> Attributes:
    address, port = http.server
    found: Attributes = {
        "http.request.method": "POST",
        "http.route": http.path,
        "url.path": http.path,
        "url.scheme": http.scheme,
        "server.address": address,
        "server.port": port,
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "tanzim",
        "gen_ai.request.model": known.model,
        "tanzim.project": known.caller.project if known.caller else None,
    }
    asked = known.generation
    if asked is not None:
        found |= {
            "gen_ai.request.stream": known.streamed,
            "gen_ai.request.temperature": asked.temperature,
            "gen_ai.request.top_p": asked.top_p,
            "gen_ai.request.max_tokens": asked.max_new_tokens,
            "gen_ai.request.seed": asked.seed,
            "gen_ai.request.stop_sequences": list(asked.stop) or None,
        }
    count = len(known.answer.times) if known.answer else 0
    if count > 1:
        found["gen_ai.request.choice.count"] = count
    return {key: value for key, value in found.items() if value is not None}


def _answered(http: _Http, known: Seen) -> Attributes:
    found: Attributes = {"http.response.status_code": http.status}
    if known.fault is not None or http.status >= 400:
        found["error.type"] = known.fault or str(http.status)
    answer = known.answer
    if answer is None:
        return found
    found["gen_ai.response.id"] = answer.id
    found["gen_ai.response.model"] = answer.model
    found["gen_ai.usage.input_tokens"] = answer.prompt_tokens
    if known.generation is not None:
        found["gen_ai.usage.output_tokens"] = answer.answer_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = sum(times.known for times in answer.times)
        ends = [end for end in answer.ends if end]
        if ends:
            found["gen_ai.response.finish_reasons"] = ends
        if known.streamed and answer.first_text is not None:
            found["gen_ai.response.time_to_first_chunk"] = answer.first_text - http.start
    return found


def _parts(times: list[Times], ended: float) -> list[tuple[str, float, float]]:
    """Return what the time went to, over all choices: name, start, end."""
    if not times:
        return []
    # The backend may be a step behind a client that has left.
    begun = min((one.begun for one in times if 0 < one.begun < ended), default=None)
    first = min((one.first for one in times if 0 < one.first < ended), default=None)
    start = min(one.asked for one in times)
    parts = []
    if begun is not None or first is None:  # some backends do not say when they begin
        parts.append(("queue", start, begun or ended))
        start = begun or ended
    if start < ended:
        parts.append(("prefill", start, first or ended))
    if first is not None:
        parts.append(("decode", first, min(ended, max(one.last for one in times))))
    return parts


def _texts(said: str, answer: Tally, keep: Keep) -> Attributes:
    """Return the conversation as the conventions have it, each text as it may be kept."""
    asked = [_turn(turn, keep) for turn in json.loads(said)]
    told = [
        {"role": "assistant", "parts": [_text(text, keep)], "finish_reason": end}
        for text, end in zip(answer.texts, answer.ends, strict=True)
    ]
    found = {"gen_ai.input.messages": asked, "gen_ai.output.messages": told}
    return {name: json.dumps(turns, ensure_ascii=False) for name, turns in found.items() if turns}


def _turn(turn: Json, keep: Keep) -> Json:
    content = turn.get("content") or ""
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    if turn["role"] == "tool":
        part = {"type": "tool_call_response", "id": turn.get("tool_call_id"), "response": keep(text)}
        return {"role": "tool", "parts": [part]}
    parts = [_text(text, keep)] if text else []
    for call in turn.get("tool_calls", ()):
        function = call["function"]
        arguments = keep(function["arguments"])
        part = {"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments}
        parts.append(part)
    return {"role": turn["role"], "parts": parts}


def _text(text: str, keep: Keep) -> Json:
    return {"type": "text", "content": keep(text)}
