"""Traces: from a client's header to a collector that understands what it gets, without holding requests up."""

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status

from cluster.trace_context import TraceContext, format_traceparent, parse_traceparent
from cluster.trace_export import BATCH, TraceExporter, unix_offset
from cluster.tracing import Trace, Tracer
from nstarx.errors import InvalidConfiguration
from nstarx.spec.record import parse
from nstarx.spec.tracing import TracingSpec

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01".encode(), f"00-{TRACE}-{CALLER}-00".encode()
"""The example of the standard."""


# The header

CONTEXTS = st.builds(TraceContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))


def test_example_of_the_standard_is_understood() -> None:
    assert parse_traceparent(SAMPLED) == TraceContext(int(TRACE, 16), int(CALLER, 16), 1)
    assert parse_traceparent(UNSAMPLED) == TraceContext(int(TRACE, 16), int(CALLER, 16), 0)


@given(context=CONTEXTS)
def test_what_is_written_is_read_back(context: TraceContext) -> None:
    header = format_traceparent(context)
    assert len(header) == 55
    assert parse_traceparent(header) == context


@pytest.mark.parametrize(
    "header",
    [
        b"",
        SAMPLED.upper(),
        SAMPLED[:-1],
        SAMPLED + b"1",
        SAMPLED + b"-",
        SAMPLED + b"-what-comes-later",
        b" " + SAMPLED,
        SAMPLED + b"\n",
        b"ff" + SAMPLED[2:],
        b"01" + SAMPLED[2:] + b".x",
        SAMPLED.replace(TRACE.encode(), b"0" * 32),
        SAMPLED.replace(CALLER.encode(), b"0" * 16),
        SAMPLED.replace(b"-", b"_"),
        SAMPLED + b", " + SAMPLED,
    ],
)
def test_anything_else_is_no_parent(header: bytes) -> None:
    assert parse_traceparent(header) is None


@pytest.mark.parametrize("rest", [b"", b"-what-comes-later", b"-"])
def test_later_versions_are_read_as_far_as_they_are_known(rest: bytes) -> None:
    context = parse_traceparent(b"cc" + SAMPLED[2:-2] + b"ff" + rest)
    assert context == TraceContext(int(TRACE, 16), int(CALLER, 16), 1)


@given(context=CONTEXTS, place=st.integers(0, 54), byte=st.binary(min_size=1, max_size=1))
def test_a_damaged_header_is_refused_or_means_what_it_says(context: TraceContext, place: int, byte: bytes) -> None:
    header = format_traceparent(context)
    damaged = header[:place] + byte + header[place + 1 :]
    found = parse_traceparent(damaged)
    assert found is None or format_traceparent(found)[3:52] == damaged[3:52]


# Who is traced


def tracer(seed: int = 1, **settings: Any) -> Tracer:
    return Tracer(TracingSpec(**settings), Random(seed))


def begun(tracer: Tracer, traceparent: bytes | None = None, tracestate: bytes | None = None) -> Trace:
    headers = {b"traceparent": traceparent, b"tracestate": tracestate}
    trace = tracer.begin({name: value for name, value in headers.items() if value is not None})
    assert trace is not None
    return trace


def test_callers_decision_counts() -> None:
    for ratio in (0.0, 1.0):
        assert tracer(sample_ratio=ratio).begin({b"traceparent": SAMPLED}) is not None
        assert tracer(sample_ratio=ratio).begin({b"traceparent": UNSAMPLED}) is None


def test_untrusted_callers_are_traced_by_their_trace_id_as_everywhere_else() -> None:
    low, high = (b"00-%b%b-%b-01" % (b"f" * 16, half, b"1" * 16) for half in (b"3" + b"f" * 15, b"4" + b"0" * 15))
    for flag in (b"00", b"01"):
        decided = tracer(sample_ratio=0.25, follow_parent=False)
        assert begun(decided, low[:-2] + flag).flags & 1
        assert decided.begin({b"traceparent": high[:-2] + flag}) is None


@given(seed=st.integers(0, 1000), ratio=st.sampled_from([0.0, 0.001, 0.01, 0.1, 1 / 3, 0.5, 1.0]))
def test_share_of_new_traces_is_exact_all_the_time(seed: int, ratio: float) -> None:
    counting = tracer(seed, sample_ratio=ratio)
    traced = 0
    for n in range(1, 2001):
        traced += counting.begin({}) is not None
        assert abs(traced - n * ratio) < 4


def test_callers_that_come_in_turn_are_all_traced() -> None:
    counting = tracer(sample_ratio=0.1)
    traced = {n % 10 for n in range(2000) if counting.begin({})}
    assert traced == set(range(10))


def test_header_that_is_no_traceparent_begins_a_new_trace() -> None:
    trace = begun(tracer(sample_ratio=1), b"00-xyz", b"vendor=1")
    assert (trace.parent_id, trace.state) == (0, b"")
    assert parse_traceparent(trace.traceparent(5)) == TraceContext(trace.trace_id, 5, 3)


def test_ids_are_new_for_every_request() -> None:
    traces = [begun(tracing) for tracing in [tracer(sample_ratio=1)] for _ in range(100)]
    assert len({trace.trace_id for trace in traces} | {trace.span_id for trace in traces}) == 200


def test_receiver_of_a_traceparent_becomes_a_part_of_the_callers_trace() -> None:
    tracing = tracer()
    trace = begun(tracing, SAMPLED)
    call = tracing.new_id()
    assert parse_traceparent(trace.traceparent(call)) == TraceContext(int(TRACE, 16), call, 1)


# What the collector gets


class Collector:
    """An OTLP receiver: whoever speaks the protocol is understood."""

    def __init__(self) -> None:
        collector = self
        self.requests: list[ExportTraceServiceRequest] = []
        self.answers: list[int] = []
        """Statuses of the next answers; 200 after them."""
        self.headers: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                status = collector.answers.pop(0) if collector.answers else 200
                if status == 200 and self.path == "/v1/traces":
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[WireSpan]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def exporter(tracer: Tracer, endpoint: str, **settings: Any) -> TraceExporter:
    return TraceExporter(tracer, TracingSpec(endpoint=endpoint, **settings), "gateway-1", offset=lambda: 1_000_000)


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def answer(tracer: Tracer, status: int = 200) -> None:
    trace = begun(tracer, SAMPLED)
    tracer.answered(trace, 1000, 2000, "/v2/models/iris/infer", status)


def test_spans_arrive_from_the_clients_header_to_the_replica(collector: Collector) -> None:
    tracing = tracer()
    trace = begun(tracing, SAMPLED, b"vendor=1,other=x")
    call = tracing.new_id()
    tracing.called(trace, call, 1200, 1800, "iris@1.0.0", "r1", 503, attempt=1)
    tracing.answered(trace, 1000, 2000, "/v2/models/iris/infer", 200, {"nstarx.version": "iris@1.1.0"})
    export = exporter(tracing, collector.endpoint, service_name="edge")
    export.flush()
    export.close()
    [request] = collector.requests
    [resource] = request.resource_spans
    assert attributes(resource.resource.attributes).items() >= {
        ("service.name", "edge"),
        ("service.instance.id", "gateway-1"),
    }
    called, answered = collector.spans()
    assert (answered.trace_id.hex(), answered.parent_span_id.hex()) == (TRACE, CALLER)
    assert answered.trace_state == "vendor=1,other=x"
    assert (answered.name, answered.kind) == ("POST /v2/models/iris/infer", WireSpan.SPAN_KIND_SERVER)
    assert (answered.start_time_unix_nano, answered.end_time_unix_nano) == (1_001_000, 1_002_000)
    assert attributes(answered.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/iris/infer",
        "http.response.status_code": 200,
        "nstarx.version": "iris@1.1.0",
    }
    assert answered.status.code == Status.STATUS_CODE_UNSET
    remote = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert (bool(answered.flags & remote), bool(called.flags & remote)) == (True, False)
    assert (called.trace_id, called.parent_span_id) == (answered.trace_id, answered.span_id)
    assert (called.span_id, called.kind) == (call.to_bytes(8, "big"), WireSpan.SPAN_KIND_CLIENT)
    assert called.status.code == Status.STATUS_CODE_ERROR
    assert attributes(called.attributes)["http.request.resend_count"] == 1


def test_error_of_the_server_is_an_error_and_one_of_the_client_is_none(collector: Collector) -> None:
    tracing = tracer()
    for status in (400, 499, 500, 504):
        answer(tracing, status)
    export = exporter(tracing, collector.endpoint)
    export.flush()
    export.close()
    failed = [attributes(span.attributes).get("error.type") for span in collector.spans() if span.status.code]
    assert failed == ["500", "504"]


def test_trace_that_begins_here_has_no_parent(collector: Collector) -> None:
    tracing = tracer(sample_ratio=1)
    trace = begun(tracing)
    tracing.answered(trace, 0, 1, "/v2/models/iris/infer", 200)
    export = exporter(tracing, collector.endpoint)
    export.flush()
    export.close()
    [span] = collector.spans()
    assert (span.parent_span_id, span.trace_state) == (b"", "")
    assert int.from_bytes(span.trace_id, "big") == trace.trace_id


def test_state_that_is_too_long_or_no_state_costs_no_span(collector: Collector) -> None:
    tracing = tracer()
    for state in (b",".join(b"%c=%b" % (letter, b"x" * 200) for letter in b"abc"), b"\xff\x00 no state", b",,,"):
        tracing.answered(begun(tracing, SAMPLED, state), 0, 1, "/", 200)
    export = exporter(tracing, collector.endpoint)
    export.flush()
    export.close()
    assert [span.trace_state for span in collector.spans()] == ["", "", ""]


def test_spans_go_out_by_themselves_in_batches_and_the_last_ones_at_the_end(collector: Collector) -> None:
    tracing = tracer()
    export = exporter(tracing, collector.endpoint, interval_s=0.01)
    for _ in range(2 * BATCH + 1):
        answer(tracing)
    export.start()
    wait_for(lambda: export.exported == 2 * BATCH + 1)
    assert [len(r.resource_spans[0].scope_spans[0].spans) for r in collector.requests] == [BATCH, BATCH, 1]
    answer(tracing)
    export.close()
    assert export.reading() == {"recorded": 2 * BATCH + 2, "exported": 2 * BATCH + 2, "dropped": 0, "failed": 0}
    assert len(collector.spans()) == 2 * BATCH + 2


def wait_for(condition: Any) -> None:
    """What another thread does takes the time that it takes."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def test_time_of_spans_is_the_time_of_day() -> None:
    before = time.time_ns()
    now = time.perf_counter_ns() + unix_offset()
    assert before - 1_000_000_000 < now < time.time_ns() + 1_000_000_000


# When something is wrong


def test_collector_that_is_slow_or_away_costs_spans_and_never_room() -> None:
    tracing = tracer(max_queue_spans=3)
    for _ in range(5):
        answer(tracing)
    assert (tracing.recorded, tracing.dropped, len(tracing.waiting)) == (3, 2, 3)
    export = exporter(tracing, "http://127.0.0.1:9/v1/traces", export_timeout_s=0.05)
    export.flush()
    export.close()
    assert export.reading() == {"recorded": 3, "exported": 0, "dropped": 2, "failed": 3}
    assert not tracing.waiting


@pytest.mark.parametrize(("status", "exported"), [(503, 2), (400, 1)])
def test_export_is_repeated_when_the_collector_asks_for_it_and_goes_on_when_not(
    collector: Collector, status: int, exported: int
) -> None:
    tracing = tracer()
    export = exporter(tracing, collector.endpoint)
    collector.answers = [status]
    for _ in range(2):
        answer(tracing)
        export.flush()
    export.close()
    assert (export.exported, export.failed) == (exported, 2 - exported)


def test_closing_does_not_wait_for_a_collector_that_is_away() -> None:
    tracing = tracer()
    export = exporter(tracing, "http://127.0.0.1:9/v1/traces", interval_s=0.01, export_timeout_s=30)
    answer(tracing)
    export.start()
    wait_for(lambda: not tracing.waiting)
    began = time.monotonic()
    export.close(timeout_s=0.1)
    assert time.monotonic() - began < 5
    export._thread.join(10)
    assert not export._thread.is_alive()


def test_thread_outlives_what_it_cannot_export(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = tracer()
    export = exporter(tracing, collector.endpoint, interval_s=0.01)
    with monkeypatch.context() as broken:
        broken.setattr(export, "_readable", lambda *_: 1 / 0)
        answer(tracing)
        export.start()
        wait_for(lambda: not tracing.waiting)
    answer(tracing)
    wait_for(lambda: export.exported == 1)
    export.close()
    assert export.reading() == {"recorded": 2, "exported": 1, "dropped": 0, "failed": 1}


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'nstarx\[otel\]'"):
        TraceExporter(tracer(), TracingSpec(), "gateway-1")


def test_exporter_that_was_never_started_can_be_closed(collector: Collector) -> None:
    exporter(tracer(), collector.endpoint).close()


# Settings


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"endpoint": "localhost:4318"}, "not a URL"),
        ({"sample_ratio": 1.1}, "sample_ratio"),
        ({"max_queue_spans": 0}, "max_queue_spans"),
        ({"interval_s": 0}, "interval_s"),
        ({"ratio": 1}, "unknown key"),
    ],
)
def test_wrong_settings_are_refused(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=problem):
        parse(TracingSpec, document, "test")
