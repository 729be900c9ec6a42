"""Traces of real requests: from the client's header through the gateway to the model's run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.frames import FLAG_TRACE
from cluster.tracing import Kind, Span
from nstarx.errors import InvalidConfiguration
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.tracing import TracingSpec
from nstarx.spec.version import VersionRef
from router.exchange import Exchange
from router.gateway import Gateway
from router.journey import Journey
from serving.replica import Replica
from tests.cluster.test_tracing import CALLER, SAMPLED, TRACE, UNSAMPLED, Collector, attributes
from tests.in_process import NODE, DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.replicas import configure
from tests.router.test_failures import crash
from tests.router.test_rescue import BAD, GOOD
from tests.router.wire import FLAKY, IRIS, Answer, Wire, flaky, hanging, in_flight, iris, post

FOLLOWED = f"Traceparent: {SAMPLED.decode()}"


def traced(plane: DataPlaneInProcess, *routes: RouteSpec, **tracing: Any) -> Gateway:
    """A gateway that traces what callers trace, and exports to nobody soon."""
    spec = TracingSpec.model_validate({"interval_s": 60, "export_timeout_s": 0.01, "sample_ratio": 0, **tracing})
    return plane.gateway(routes, tracing=spec)


def spans(gateway: Gateway) -> list[Span]:
    tracer = gateway._tracer
    assert tracer is not None
    return list(tracer.waiting)


def whole(gateway: Gateway) -> list[Span]:
    return [span for span in spans(gateway) if span.kind is Kind.SERVER]


def calls(gateway: Gateway) -> list[Span]:
    return [span for span in spans(gateway) if span.kind is Kind.CLIENT]


def ask(wire: Wire, *headers: str, path: str = IRIS, body: bytes | None = None) -> Answer:
    return wire.send(post(path, body or iris(), *headers)).answer()


def route(model: str = "iris", **parts: Any) -> RouteSpec:
    return RouteSpec.model_validate({"model": model, "split": {"weighted": {f"{model}@1.0.0": 1}}, **parts})


# Who is traced


def test_request_whose_caller_traces_is_traced_and_no_other(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = traced(plane)
    with Wire(gateway) as wire:
        for header in (FOLLOWED, f"Traceparent: {UNSAMPLED.decode()}", "X-Other: 1"):
            assert ask(wire, header).status == 200
    [answered] = whole(gateway)
    assert (answered.trace.trace_id, answered.parent_id) == (int(TRACE, 16), int(CALLER, 16))
    assert len(spans(gateway)) == 2


def test_share_of_requests_is_traced_where_no_caller_decides(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = traced(plane, sample_ratio=0.1)
    with Wire(gateway) as wire:
        for _ in range(100):
            ask(wire)
    assert 8 <= len(whole(gateway)) <= 12
    assert {span.parent_id for span in whole(gateway)} == {0}


def test_gateway_without_tracing_takes_the_short_way_and_replicas_hear_nothing(
    plane: DataPlaneInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.replica("iris@1.0.0")
    seen: list[Any] = []
    monkeypatch.setattr(Exchange, "start", _noting(seen, Exchange.start))
    plain, tracing = plane.gateway(), traced(plane)
    with Wire(plain) as wire:
        assert ask(wire, FOLLOWED).status == 200
    with Wire(tracing) as wire:
        assert ask(wire, FOLLOWED).status == 200
    assert [type(exchange) for exchange in seen] == [Exchange, Journey]
    assert not any(exchange.flags & FLAG_TRACE for exchange in seen)


def _noting(seen: list[Any], start: Any) -> Any:
    def noted(exchange: Any) -> None:
        seen.append(exchange)
        start(exchange)

    return noted


# What is written down


def test_answer_and_call_are_written_down_with_what_decided(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    beta = {"name": "beta", "match": {"headers": {"x-beta": "1"}}, "split": {"weighted": {"iris@1.0.0": 1}}}
    gateway = traced(plane, route(rules=[beta]))
    with Wire(gateway) as wire:
        answer = ask(wire, FOLLOWED, "X-Beta: 1", "X-Request-Id: r1")
    assert answer.headers["x-nstarx-rule"] == "beta"
    called, answered = spans(gateway)
    assert (called.name, answered.name) == ("call iris@1.0.0", "POST /v2/models/iris/infer")
    assert called.parent_id == answered.id
    assert answered.started <= called.started <= called.ended <= answered.ended
    assert answered.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/models/iris/infer",
        "http.response.status_code": 200,
        "nstarx.request_id": "r1",
        "nstarx.version": "iris@1.0.0",
        "nstarx.role": "primary",
        "nstarx.route": "iris",
        "nstarx.rule": "beta",
    }
    [replica] = plane.replicas
    assert called.attributes == {"nstarx.version": "iris@1.0.0", "nstarx.replica": replica.id, "nstarx.status": 200}


def test_request_id_in_the_trace_is_the_one_that_the_client_gets(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = traced(plane)
    with Wire(gateway) as wire:
        answer = ask(wire, FOLLOWED)
    [answered] = whole(gateway)
    assert answered.attributes["nstarx.request_id"] == answer.headers["x-request-id"]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[DataPlaneInProcess]:
    """A data plane of the models that a test writes."""
    plane = DataPlaneInProcess(tmp_path)
    yield plane
    plane.close()


def test_rescue_is_two_calls_of_one_trace(written: DataPlaneInProcess, write_model: WriteModel) -> None:
    write_model("model", GOOD)
    write_model("model", BAD, "2.0.0")
    written.replica("model@1.0.0")
    written.replica("model@2.0.0")
    canary = {"stable": "model@1.0.0", "candidate": "model@2.0.0", "percent": 100}
    gateway = traced(written, route("model", split={"canary": canary}))
    with Wire(gateway) as wire:
        answer = ask(wire, FOLLOWED, path="/v2/models/model/infer", body=flaky())
    assert answer.headers["x-nstarx-rescued"] == "model@2.0.0"
    [answered] = whole(gateway)
    assert [(span.attributes["nstarx.version"], span.failed) for span in calls(gateway)] == [
        ("model@2.0.0", True),
        ("model@1.0.0", False),
    ]
    assert {span.parent_id for span in calls(gateway)} == {answered.id}
    assert (answered.attributes["nstarx.role"], answered.attributes["http.response.status_code"]) == ("rescue", 200)


def test_try_whose_replica_died_and_the_one_that_answered_are_both_seen(plane: DataPlaneInProcess) -> None:
    dying = plane.replica("flaky@1.0.0")
    gateway = traced(plane)
    with Wire(gateway) as wire:
        with hanging(plane):
            wire.send(post(FLAKY, flaky(), FOLLOWED))
            plane.until(lambda: in_flight(gateway) == 1)
            plane.replica("flaky@1.0.0")
            plane.settle(gateway)
            crash(plane, dying)
        assert wire.answer().status == 200
    first, second = calls(gateway)
    assert (first.attributes["nstarx.replica"], first.attributes["nstarx.status"]) == (dying.id, 503)
    assert (second.attributes["nstarx.status"], second.attributes["http.request.resend_count"]) == (200, 1)


def test_try_beside_a_slow_one_is_a_call_of_its_own_and_the_slow_one_ends_when_it_is_withdrawn(
    plane: DataPlaneInProcess,
) -> None:
    slow, fast = plane.replica("flaky@1.0.0"), plane.replica("flaky@1.0.0")
    hedge = {"after_s": 0.02, "budget_percent": 100.0}
    gateway = traced(plane, route("flaky", hedge=hedge, balancing={"latency_bias": 0.0, "ejection": None}))
    configure(plane, slow, hang=True)
    try:
        with Wire(gateway) as wire:
            hedged = [ask(wire, FOLLOWED, path=FLAKY, body=flaky()) for _ in range(8)]
    finally:
        configure(plane, slow)
    assert {answer.status for answer in hedged} == {200}
    by_trace = [[span for span in calls(gateway) if span.parent_id == parent.id] for parent in whole(gateway)]
    beside = [spans for spans in by_trace if len(spans) == 2]
    assert len(beside) == sum("x-nstarx-hedged" in answer.headers for answer in hedged) >= 1
    for first, second in beside:
        assert (first.attributes["nstarx.replica"], first.attributes["nstarx.status"]) == (slow.id, 499)
        assert (second.attributes["nstarx.replica"], second.attributes["nstarx.status"]) == (fast.id, 200)
        assert second.attributes["http.request.resend_count"] == 1


def test_answer_from_the_cache_has_no_call_and_those_who_wait_are_traced_too(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = traced(plane, route(cache={}))
    with Wire(gateway) as wire:
        assert [ask(wire, FOLLOWED).headers["x-nstarx-cache"] for _ in range(2)] == ["miss", "hit"]
    assert len(calls(gateway)) == 1
    assert [span.attributes["nstarx.role"] for span in whole(gateway)] == ["primary", "cache"]


def test_client_that_goes_away_and_one_that_is_refused_end_their_traces(plane: DataPlaneInProcess) -> None:
    plane.replica("flaky@1.0.0")
    gateway = traced(plane)
    with hanging(plane):
        with Wire(gateway) as wire:
            wire.send(post(FLAKY, flaky(), FOLLOWED))
            plane.until(lambda: in_flight(gateway) == 1)
        plane.until(lambda: len(spans(gateway)) == 2)
        with Wire(gateway) as wire:
            late = ask(wire, FOLLOWED, "X-Request-Timeout-Seconds: 0.02", path=FLAKY, body=flaky())
            assert late.status == 504
    assert [span.attributes["http.response.status_code"] for span in whole(gateway)] == [499, 504]
    assert [span.attributes["nstarx.status"] for span in calls(gateway)] == [499, 504]


def test_nothing_to_ask_is_seen_in_the_trace(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    fallback = {"static": {"status": 218, "body": {"closed": True}}}
    gateway = traced(plane, route(), route("digits", fallback=fallback))
    with Wire(gateway) as wire:
        assert ask(wire, FOLLOWED, path="/v2/models/digits/infer").status == 218
    [span] = spans(gateway)
    assert span.attributes["http.response.status_code"] == 218


def test_copy_for_a_shadow_is_a_call_of_the_same_trace(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    plane.replica("iris@1.1.0")
    gateway = traced(plane, route(shadows=[{"version": "iris@1.1.0"}]))
    with Wire(gateway) as wire:
        ask(wire, FOLLOWED)
        plane.until(lambda: len(calls(gateway)) == 2)
    [answered] = whole(gateway)
    assert {span.attributes["nstarx.version"] for span in calls(gateway)} == {"iris@1.0.0", "iris@1.1.0"}
    assert {span.parent_id for span in calls(gateway)} == {answered.id}


def test_stream_is_traced_to_its_end(written: DataPlaneInProcess, write_model: WriteModel) -> None:
    part = "        yield {'y': inputs['x']}\n"
    write_model("model", f"class Model:\n    def infer(self, inputs):\n{part}{part}")
    written.replica("model@1.0.0")
    gateway = traced(written)
    with Wire(gateway) as wire:
        answer = ask(wire, FOLLOWED, "Accept: text/event-stream", path="/v2/models/model/infer", body=flaky())
    assert answer.body.count(b"data: ") == 2
    assert [span.attributes["http.response.status_code"] for span in whole(gateway)] == [200]
    assert [span.attributes["nstarx.status"] for span in calls(gateway)] == [200]


# To a collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_one_trace_leads_from_the_client_to_the_models_run(plane: DataPlaneInProcess, collector: Collector) -> None:
    tracing = TracingSpec(endpoint=collector.endpoint, interval_s=0.02)
    replica = Replica(plane.repository, VersionRef.parse("iris@1.0.0"), NODE, None, plane.coordinator, tracing)
    plane.call(replica.start())
    plane.replicas.append(replica)
    gateway = plane.gateway((route(),), tracing=tracing)
    with Wire(gateway) as wire:
        assert ask(wire, FOLLOWED).status == 200
    plane.until(lambda: len(collector.spans()) == 5)
    by_id = {span.span_id: span for span in collector.spans()}
    [run] = [span for span in by_id.values() if span.name == "run"]
    chain = [run]
    while (parent := by_id.get(chain[-1].parent_span_id)) is not None:
        chain.append(parent)
    assert [span.name for span in chain] == ["run", "infer iris@1.0.0", "call iris@1.0.0", "POST /v2/models/iris/infer"]
    assert chain[-1].parent_span_id.hex() == CALLER
    assert {span.trace_id.hex() for span in by_id.values()} == {TRACE}
    starts = [span.start_time_unix_nano for span in reversed(chain)]
    assert starts == sorted(starts)
    ends = [span.end_time_unix_nano for span in chain]
    assert ends == sorted(ends)
    services = {
        attributes(resource.resource.attributes)["service.instance.id"]
        for request in collector.requests
        for resource in request.resource_spans
    }
    assert services == {gateway.id, replica.id}


def test_spans_are_counted_and_the_last_ones_go_out_when_the_gateway_stops(
    plane: DataPlaneInProcess, collector: Collector
) -> None:
    plane.replica("iris@1.0.0")
    gateway = traced(plane, endpoint=collector.endpoint, export_timeout_s=5)
    admin = f"http://127.0.0.1:{gateway.spec.admin_port}"
    with Wire(gateway) as wire:
        ask(wire, FOLLOWED)
    plane.until(lambda: _answers(admin))
    assert 'nstarx_spans_total{gateway="gateway-0",outcome="recorded"} 2.0' in httpx.get(f"{admin}/metrics").text
    assert not collector.spans()
    plane.call(gateway.stop())
    assert len(collector.spans()) == 2


def _answers(admin: str) -> bool:
    try:
        return httpx.get(f"{admin}/status").status_code == 200
    except httpx.ConnectError:
        return False


def test_gateway_that_can_not_export_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    nobody: Any = None
    with pytest.raises(InvalidConfiguration, match=r"pip install 'nstarx\[otel\]'"):
        Gateway("g", NODE, GatewaySpec(tracing=TracingSpec()), nobody, RoutesDocument())
