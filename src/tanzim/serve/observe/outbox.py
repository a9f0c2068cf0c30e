"""Where spans are sent: an OTLP collector over HTTP, which may be away without anybody waiting for it.

Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tanzim import __version__
from tanzim.core.optional import need

FLUSH = 5.0  # seconds in which a server that ends delivers what it has
_PATH = "/v1/traces"
_LONGEST = 1 << 15  # characters of an attribute's value; what is longer is cut

_log = logging.getLogger("tanzim.serve")


class Outbox:
    """Spans on their way to a collector, in a thread of their own.

    Nothing is asked of the network but to deliver to the endpoint: what describes the server is its name and
    version, and what the operator sets in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES. Headers (a
    collector's key) come from OTEL_EXPORTER_OTLP_HEADERS.

    Args:
        endpoint: of the collector, without ``/v1/traces``.
        lost: told how many spans could not be delivered.

    Raises:
        MissingExtra: the extra ``traces`` is not installed.

    """

    def __init__(self, endpoint: str, lost: Callable[[int], None]) -> None:
        sdk = need("opentelemetry.sdk.trace", "traces")
        export = need("opentelemetry.sdk.trace.export", "traces")
        http = need("opentelemetry.exporter.otlp.proto.http.trace_exporter", "traces")
        resources = need("opentelemetry.sdk.resources", "traces")
        own = resources.Resource({"service.name": "tanzim", "service.version": __version__})
        self._exporter = http.OTLPSpanExporter(endpoint=endpoint.removesuffix("/") + _PATH)
        self._provider = sdk.TracerProvider(
            resource=own.merge(resources.OTELResourceDetector().detect()),
            span_limits=sdk.SpanLimits(max_span_attribute_length=_LONGEST),
            shutdown_on_exit=False,
        )
        success = export.SpanExportResult.SUCCESS
        quiet = _Quiet(self._exporter, success, endpoint, lost)
        self._provider.add_span_processor(export.BatchSpanProcessor(quiet))
        self.tracer: Any = self._provider.get_tracer("tanzim.serve", __version__)

    def close(self) -> None:
        """Deliver what is there, for at most `FLUSH` seconds."""
        end = threading.Thread(target=self._provider.shutdown, name="tanzim-traces-end", daemon=True)
        end.start()
        end.join(FLUSH)
        if end.is_alive():
            self._exporter.shutdown()  # no further attempt is made


class _Attempts(logging.Filter):
    """Keeps to itself what the exporter's log says of each attempt, but for the last."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take a message."""
        self.last = record.getMessage()
        return False


_attempts = _Attempts()


class _Quiet:
    """An exporter that says once that it fails, and once that it does no longer.

    Args:
        inner: delivers.
        success: what it returns when it has.
        endpoint: for what is said.
        lost: told how many spans were not delivered.

    """

    def __init__(self, inner: Any, success: object, endpoint: str, lost: Callable[[int], None]) -> None:  # noqa: ANN401
        self._inner, self._success, self._endpoint, self._lost = inner, success, endpoint, lost
        self._failing = False
        logging.getLogger(type(inner).__module__).addFilter(_attempts)

    def export(self, spans: Sequence[object]) -> object:
        """Deliver some spans."""
        result = self._inner.export(spans)
        failed = result is not self._success
        if failed:
            self._lost(len(spans))
        if failed != self._failing:
            self._failing = failed
            if failed:
                why = _attempts.last
                _log.error("traces cannot be delivered to %s and are lost: %s", self._endpoint, why)
            else:
                _log.warning("traces are delivered to %s again", self._endpoint)
        return result

    def shutdown(self) -> None:
        """End."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Do nothing: nothing is kept here."""
        return True
