"""The way of finished spans to a collector: a thread of its own, OpenTelemetry's SDK, OTLP over HTTP."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.tracing import Kind, Span, Tracer
from nstarx.errors import InvalidConfiguration
from nstarx.spec.tracing import TracingSpec

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext, TraceState

log = logging.getLogger("nstarx.tracing")

BATCH = 256
"""Spans that are encoded in one go: about ten milliseconds of a thread that shares the interpreter with requests."""

Offset = Callable[[], int]


def unix_offset() -> int:
    """What turns nanoseconds of `time.perf_counter_ns` into Unix time, by the clock as it is set now."""
    return time.time_ns() - time.perf_counter_ns()


class TraceExporter:
    """Exports a tracer's spans until it is closed. Raises InvalidConfiguration where the extra `otel` is missing.

    `process` is the id of the gateway or replica.
    """

    def __init__(self, tracer: Tracer, spec: TracingSpec, process: str, offset: Offset = unix_offset) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import SpanExportResult
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError:
            raise InvalidConfiguration(
                "tracing needs OpenTelemetry's exporter; install it with: pip install 'nstarx[otel]'"
            ) from None
        self._tracer = tracer
        self._interval_s = spec.interval_s
        self._offset = offset
        self._resource = Resource.create({"service.name": spec.service_name, "service.instance.id": process})
        self._scope = InstrumentationScope("nstarx")
        self._sink: SpanExporter = OTLPSpanExporter(endpoint=spec.endpoint, timeout=spec.export_timeout_s)
        self._success = SpanExportResult.SUCCESS
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nstarx-traces", daemon=True)
        self.exported = 0
        self.failed = 0
        """Spans that no collector took."""

    def start(self) -> None:
        """Begin to export, from a thread of its own."""
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Export what is there and end, within about `timeout_s` seconds. Blocks: call it from a thread."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._sink.shutdown()

    def flush(self) -> None:
        """Export everything that waits, batch by batch."""
        while batch := self._take():
            if self._send(batch):
                self.exported += len(batch)
            else:
                self.failed += len(batch)

    def reading(self) -> dict[str, int]:
        """Spans since the start: recorded, exported, dropped for want of room, refused by the collector."""
        tracer = self._tracer
        return {
            "recorded": tracer.recorded,
            "exported": self.exported,
            "dropped": tracer.dropped,
            "failed": self.failed,
        }

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.flush()
        self.flush()

    def _send(self, batch: list[Span]) -> bool:
        """Whether the collector took it. Some releases of the SDK raise what others return."""
        offset = self._offset()
        try:
            return self._sink.export([self._readable(span, offset) for span in batch]) is self._success
        except Exception:
            log.exception("spans could not be exported", extra={"action": "trace_export_failed"})
            return False

    def _take(self) -> list[Span]:
        waiting = self._tracer.waiting
        return [waiting.popleft() for _ in range(min(len(waiting), BATCH))]

    def _readable(self, span: Span, offset: int) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanKind, Status, StatusCode

        return ReadableSpan(
            name=span.name,
            context=_context(span, span.id, remote=False),
            parent=_context(span, span.parent_id, remote=span.kind is Kind.SERVER) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind[span.kind.name],
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=span.started + offset,
            end_time=span.ended + offset,
            instrumentation_scope=self._scope,
        )


def _context(span: Span, id: int, remote: bool) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    trace = span.trace
    return SpanContext(trace.trace_id, id, remote, TraceFlags(trace.flags), _state(trace.state))


def _state(state: bytes) -> "TraceState | None":
    from opentelemetry.trace import TraceState

    return TraceState.from_header([state.decode("latin-1")]) if state else None
