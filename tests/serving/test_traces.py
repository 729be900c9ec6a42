"""Spans that a replica leaves: of traced calls alone, whole, and with the gateway's call as their parent."""

import struct
import time
from pathlib import Path
from random import Random

import pytest

from cluster.frames import FLAG_TRACE, Kind, pack
from cluster.trace_context import PLACE_BYTES, TraceContext, pack_place, unpack_place
from cluster.tracing import Kind as SpanKind
from cluster.tracing import Span, Tracer
from nstarx.spec.tracing import TracingSpec
from serving.traces import Traces
from tests.serving.doubles import POISON, Obedient, request, spec, until
from tests.serving.raw_lane import REF, RawLane, answer_of, request_frame, serving

pytestmark = pytest.mark.anyio

PLACE = TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 1)


@pytest.fixture
def tracer() -> Tracer:
    return Tracer(TracingSpec(), Random(1))


@pytest.fixture
def traces(tracer: Tracer) -> Traces:
    return Traces(tracer, REF, "r1")


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "s"


def traced(id: int, body: bytes, place: TraceContext = PLACE, wait_ms: int = 0) -> bytes:
    return request_frame(id, pack_place(place) + body, FLAG_TRACE, wait_ms)


def whole(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind is SpanKind.SERVER]


def test_place_in_a_trace_takes_the_same_way_back() -> None:
    assert len(pack_place(PLACE)) == PLACE_BYTES == 25
    assert unpack_place(pack_place(PLACE)) == PLACE
    with pytest.raises(struct.error):
        unpack_place(b"")


async def test_traced_call_leaves_the_whole_the_wait_and_the_run(socket: Path, traces: Traces, tracer: Tracer) -> None:
    async with serving(socket, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(traced(7, request([21.0])))
        assert answer_of(await lane.frame(), 7) == [[42]]
        lane.hang_up()
    infer, wait, run = tracer.waiting
    assert (infer.name, infer.kind, infer.parent_id) == (f"infer {REF}", SpanKind.SERVER, PLACE.span_id)
    assert {span.trace.trace_id for span in (infer, wait, run)} == {PLACE.trace_id}
    assert (wait.name, run.name, wait.kind) == ("wait", "run", SpanKind.INTERNAL)
    assert wait.parent_id == run.parent_id == infer.id
    assert infer.started == wait.started <= wait.ended <= run.started <= run.ended <= infer.ended
    assert infer.attributes == {
        "nstarx.version": REF,
        "nstarx.replica": "r1",
        "nstarx.status": 200,
        "nstarx.batch_size": 1,
    }
    assert not infer.failed
    assert not traces.open


async def test_traced_call_runs_with_the_others_and_only_it_leaves_spans(
    socket: Path, traces: Traces, tracer: Tracer
) -> None:
    async with serving(socket, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        frames = [request_frame(1, request([1.0])), traced(2, request([2.0])), request_frame(3, request([3.0]))]
        lane.send(b"".join(frames))
        assert [answer_of(await lane.frame(), id) for id in (1, 2, 3)] == [[[2]], [[4]], [[6]]]
        assert served.runtime.runs == [[[1], [2], [3]]]
        lane.hang_up()
    [infer] = whole(list(tracer.waiting))
    assert infer.attributes["nstarx.batch_size"] == 3


async def test_failure_and_lateness_are_seen_in_the_trace(socket: Path, traces: Traces, tracer: Tracer) -> None:
    async with serving(socket, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(traced(1, request([POISON])))
        assert (await lane.frame())[3] == 500
        lane.send(traced(2, b"{"))
        assert (await lane.frame())[3] == 400
        lane.hang_up()
    failed, refused = whole(list(tracer.waiting))
    assert (failed.attributes["nstarx.status"], failed.failed) == (500, True)
    assert (refused.attributes["nstarx.status"], refused.failed) == (400, False)
    assert not traces.open


async def test_call_without_room_and_one_that_is_late_are_seen_in_the_trace(
    socket: Path, traces: Traces, tracer: Tracer
) -> None:
    runtime = Obedient("async")
    runtime.gate.clear()
    model = spec(max_batch_size=1, max_queue_size=2, max_concurrent_runs=1)
    async with serving(socket, runtime, model, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, request([1.0])))
        lane.send(traced(2, request([2.0]), wait_ms=1))
        await until(lambda: served.lanes.batcher.backlog == 2)
        lane.send(traced(3, request([3.0])))
        assert (await lane.frame())[1] == Kind.OVERLOADED
        late = time.perf_counter() + 0.002
        await until(lambda: time.perf_counter() > late)
        runtime.gate.set()
        kinds = {(await lane.frame())[1] for _ in range(2)}
        assert kinds == {Kind.RESPONSE, Kind.EXPIRED}
        lane.hang_up()
    assert [span.attributes["nstarx.status"] for span in whole(list(tracer.waiting))] == [503, 504]


async def test_call_that_is_withdrawn_or_forsaken_leaves_nothing_behind(
    socket: Path, traces: Traces, tracer: Tracer
) -> None:
    runtime = Obedient("async")
    runtime.gate.clear()
    async with serving(socket, runtime, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(b"".join(traced(id, request([1.0])) for id in (1, 2)))
        await until(lambda: len(traces.open) == 2)
        lane.send(pack(Kind.CANCEL, 1))
        await until(lambda: len(traces.open) == 1)
        lane.hang_up()
        await until(lambda: not traces.open)
        runtime.gate.set()
    assert not tracer.waiting


async def test_replica_without_tracing_answers_traced_calls_like_others(socket: Path) -> None:
    async with serving(socket) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(traced(1, request([4.0])))
        assert answer_of(await lane.frame(), 1) == [[8]]
        assert not served.lanes.batcher.traces.open
        lane.hang_up()


async def test_traced_call_that_is_too_short_to_be_one_ends_the_lane(socket: Path, traces: Traces) -> None:
    async with serving(socket, traces=traces) as served:
        lane = await RawLane.greeted(served.address)
        lane.send(request_frame(1, b"{}", FLAG_TRACE))
        assert "25 bytes" in await lane.refusal()
