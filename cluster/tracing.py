"""Traces of requests: who is traced, and what is written down. The rest happens off the hot path, see `trace_export`.

    tracer is None                      tracing is off: this test is all that it costs
    trace = tracer.begin(headers)       None for a request that isn't traced
    tracer.called(trace, …)             a call of a replica has ended
    tracer.answered(trace, …)           the request has been answered

Times are nanoseconds of `time.perf_counter_ns`, as everywhere on the request path.
"""

from collections import deque
from enum import IntEnum
from random import Random
from typing import NamedTuple

from cluster.trace_context import RANDOM, SAMPLED, STATE_BYTES, TraceContext, format_traceparent, parse_traceparent
from nstarx.spec.tracing import TracingSpec

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
TWO64 = 1 << 64
GOLDEN = 0x9E3779B97F4A7C15
"""2⁶⁴ divided by the golden ratio: multiples of it fall evenly, and in no rhythm that callers could share."""

Attributes = dict[str, str | int | float | bool]
"""By the names of OpenTelemetry's semantic conventions, or `nstarx.…`."""


class Kind(IntEnum):
    """What a span stands for; numbers as in OTLP."""

    INTERNAL = 1
    """A part of what a replica did."""
    SERVER = 2
    """The gateway answered a client, or a replica a gateway."""
    CLIENT = 3
    """The gateway asked a replica."""


class Trace(NamedTuple):
    """A request that is traced."""

    trace_id: int
    span_id: int
    """The gateway's own span, parent of what the gateway does."""
    parent_id: int
    """The caller's span; 0 where the trace begins here."""
    flags: int
    state: bytes

    def traceparent(self, span_id: int) -> bytes:
        """The header that makes what the receiver does a part of one of our spans."""
        return format_traceparent(TraceContext(self.trace_id, span_id, self.flags))


class Span(NamedTuple):
    """What there is to know about something that was done."""

    trace: Trace
    id: int
    parent_id: int
    name: str
    kind: Kind
    started: int
    ended: int
    attributes: Attributes
    failed: bool


class Tracer:
    """Decides what is traced and holds finished spans until they are exported, a bounded number of them.

    Spans are appended by the event loop and taken by the thread that exports: a deque needs no lock for that.
    """

    def __init__(self, spec: TracingSpec, random: Random) -> None:
        self._bits = random.getrandbits
        self._follow_parent = spec.follow_parent
        self._bound = round(spec.sample_ratio * TWO64)
        self._place = random.getrandbits(64)
        self._room = spec.max_queue_spans
        self.waiting: deque[Span] = deque()
        self.recorded = 0
        self.dropped = 0
        """Spans for which there was no room."""

    def begin(self, headers: dict[bytes, bytes]) -> Trace | None:
        """Whether a request is traced: as its caller's flag says; where that doesn't count, by the caller's trace id
        (the lower 64 bits of it, as OpenTelemetry's TraceIdRatioBased); and without a caller's trace, by counting."""
        header = headers.get(TRACEPARENT)
        parent = parse_traceparent(header) if header is not None else None
        if parent is None:
            return self._new() if self._next() else None
        traced = parent.sampled if self._follow_parent else parent.trace_id % TWO64 < self._bound
        return self._joined(parent, headers.get(TRACESTATE, b"")) if traced else None

    def called(
        self, trace: Trace, id: int, started: int, ended: int, ref: str, replica: str, status: int, attempt: int = 0
    ) -> None:
        """A replica's call has ended; `id` is from `new_id`, so that the replica may have had it before."""
        attributes: Attributes = {"nstarx.version": ref, "nstarx.replica": replica, "nstarx.status": status}
        if attempt:
            attributes["http.request.resend_count"] = attempt
        failed = status >= 500
        self.record(Span(trace, id, trace.span_id, f"call {ref}", Kind.CLIENT, started, ended, attributes, failed))

    def answered(
        self, trace: Trace, started: int, ended: int, route: str, status: int, attributes: Attributes | None = None
    ) -> None:
        """A request has been answered; `route` is the pattern of its path, `/v2/models/iris/infer`."""
        known: Attributes = {
            "http.request.method": "POST",
            "http.route": route,
            "http.response.status_code": status,
            **(attributes or {}),
        }
        failed = status >= 500
        if failed:
            known["error.type"] = str(status)
        name = f"POST {route}"
        self.record(Span(trace, trace.span_id, trace.parent_id, name, Kind.SERVER, started, ended, known, failed))

    def record(self, span: Span) -> None:
        """Keep a finished span for the export, if there is room."""
        if len(self.waiting) < self._room:
            self.waiting.append(span)
            self.recorded += 1
        else:
            self.dropped += 1

    def new_id(self) -> int:
        """An id for a span."""
        return self._bits(64) or 1

    def _next(self) -> bool:
        """Whether the next request is among those that are traced: a share of them that is exact all the time."""
        self._place = place = (self._place + GOLDEN) % TWO64
        return place < self._bound

    def _new(self) -> Trace:
        return Trace(self._bits(128) or 1, self.new_id(), 0, SAMPLED | RANDOM, b"")

    def _joined(self, parent: TraceContext, state: bytes) -> Trace:
        kept = state if len(state) <= STATE_BYTES else b""
        return Trace(parent.trace_id, self.new_id(), parent.span_id, parent.flags | SAMPLED, kept)
