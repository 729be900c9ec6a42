"""One call at rest: it runs at once, on the shortest way, and ends as it would on any other."""

import asyncio
import gzip

import numpy as np
import pytest

from cluster.frames import FLAG_ACCEPT_GZIP, FLAG_GZIP
from nstarx.spec.model import Batching
from nstarx.tensors import Tensors
from serving.batcher import Batcher
from serving.call import Call
from serving.pace import LEAVE
from tests.serving.doubles import (
    POISON,
    Clock,
    Listener,
    Obedient,
    batcher,
    call,
    double,
    outcomes,
    raw_call,
    request,
    spec,
    turns,
)

pytestmark = pytest.mark.anyio


async def taught(runtime: Obedient, lane: Listener, clock: Clock | None = None, **limits: int) -> Batcher:
    """A batcher that has met the frame of plain calls, and is at rest."""
    batches = batcher(runtime, spec(**limits), clock)
    for id in (101, 102):
        batches.add([call(lane, id, arrived=clock() if clock else 0)])
        await lane.heard(id)
    runtime.runs.clear()
    return batches


KINDS = {
    "flat": request([1.0]),
    "rows": request([1.0]).replace(b"[1.0]", b"[[1.0]]"),
    "with an id": request([1.0], id="7"),
    "other shape": request([1.0, 1.0]),
    "several rows": request([1.0], [1.0], [1.0]),
    "spaces": request([1.0]).replace(b"[1.0]", b" [ 1.0 ]"),
}


@pytest.mark.parametrize("payload", KINDS.values(), ids=KINDS)
async def test_call_that_comes_alone_is_answered_at_once(lane: Listener, payload: bytes) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane)
    for id in (1, 2):
        batches.add([raw_call(lane, id, payload)], alone=True)
        assert {value for row in lane.rows(id) for value in row} == {2}
        assert lane.flushed == len(lane.told)
    assert len(runtime.runs) == 2
    assert (batches.counters.succeeded, outcomes(batches), batches.backlog) == (4, 4, 0)
    assert sum(batches.counters.queue) == sum(batches.counters.run) == 4


async def test_compressed_call_that_comes_alone_is_answered_at_once(lane: Listener) -> None:
    batches = await taught(Obedient(), lane)
    batches.add([raw_call(lane, 1, gzip.compress(request([3.0])), FLAG_GZIP)], alone=True)
    assert lane.rows(1) == [[6]]


async def test_client_that_accepts_compression_takes_the_short_way_too(lane: Listener) -> None:
    batches = await taught(Obedient(), lane)
    batches.add([raw_call(lane, 1, request([3.0]), FLAG_ACCEPT_GZIP)], alone=True)
    assert lane.rows(1) == [[6]]


async def test_several_that_come_together_run_at_once_and_together(lane: Listener) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane, max_batch_size=2)
    batches.add([call(lane, id) for id in (1, 2, 3)], alone=True)
    assert runtime.runs == [[[1], [2]]]
    await lane.heard(3)
    assert runtime.runs == [[[1], [2]], [[3]]]


async def test_call_waits_its_turn_where_others_wait(lane: Listener) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane)
    batches.add([call(lane, 1)])
    batches.add([call(lane, 2)], alone=True)
    assert runtime.runs == []
    await lane.heard(1, 2)
    assert runtime.runs == [[[1], [2]]]


async def test_call_waits_for_company_where_the_version_says_so(lane: Listener) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane)
    batches.configure(Batching(max_batch_size=2, max_wait_ms=3_600_000))
    batches.add([call(lane, 1, arrived=batches._clock())], alone=True)
    await turns()
    assert runtime.runs == []
    batches.add([call(lane, 2, arrived=batches._clock())], alone=True)
    await lane.heard(1, 2)
    assert runtime.runs == [[[1], [2]]]


async def test_bad_call_is_refused_and_the_next_one_answered(lane: Listener) -> None:
    batches = await taught(Obedient(), lane)
    batches.add([call(lane, 1, [POISON])], alone=True)
    batches.add([raw_call(lane, 2, request([1.0]).replace(b"1.0", b"true"))], alone=True)
    batches.add([call(lane, 3)], alone=True)
    assert lane.statuses == {101: 200, 102: 200, 1: 500, 2: 400, 3: 200}
    assert lane.error(1) == "sample@1.0.0 failed: ValueError: poison"
    assert "expected FP32" in lane.error(2)
    assert (batches.counters.failed, batches.counters.succeeded, batches.backlog) == (2, 3, 0)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), StopIteration()], ids=repr)
async def test_whatever_a_model_raises_is_answered(lane: Listener, error: BaseException) -> None:
    def fail(inputs: Tensors) -> Tensors:
        raise error

    runtime = Obedient()
    batches = await taught(runtime, lane)
    runtime.work = fail
    batches.add([call(lane, 1)], alone=True)
    assert lane.statuses[1] == 500
    assert batches.backlog == 0


async def test_answer_with_other_rows_than_the_request_is_the_models_failure(lane: Listener) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane)
    runtime.work = lambda inputs: {"y": np.ones((3, 1), dtype=np.float32)}
    batches.add([call(lane, 1)], alone=True)
    assert "has the shape [3,1] after a run over 1 rows" in lane.error(1)


async def test_answer_that_is_not_finite_is_marked(lane: Listener) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane)
    batches.add([call(lane, 1)], alone=True)
    runtime.work = lambda inputs: {"y": inputs["x"] * np.float32(np.nan)}
    batches.add([call(lane, 2)], alone=True)
    assert (lane.statuses[2], lane.invalid) == (200, {2})
    assert lane.bodies[2][0]["outputs"][0]["data"] == [None]


async def test_call_of_a_closed_lane_is_not_run(lane: Listener) -> None:
    gone, runtime = Listener(), Obedient()
    batches = await taught(runtime, lane)
    gone.closed = True
    batches.add([call(gone, 1)], alone=True)
    assert (runtime.runs, gone.told, batches.counters.cancelled) == ([], [], 1)


async def test_call_whose_time_is_up_is_not_run(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = await taught(runtime, lane, clock)
    batches.add([call(lane, 1, expires=clock())], alone=True)
    batches.add([call(lane, 2, expires=clock() + 1)], alone=True)
    assert (lane.ends(1), lane.ends(2)) == (["expired"], ["answer"])


async def test_call_without_room_is_turned_away(lane: Listener) -> None:
    batches = await taught(Obedient(), lane)
    full = batches.spec.limits.model_copy(update={"max_queue_size": 0})
    batches.spec = batches.spec.model_copy(update={"limits": full})
    batches.add([call(lane, 1)], alone=True)
    assert lane.ends(1) == ["overloaded"]


async def test_run_that_hangs_is_seen_from_outside(lane: Listener, clock: Clock) -> None:
    ages = []

    def slow(inputs: Tensors) -> Tensors:
        clock.pass_ms(2000)
        ages.append(batches.running_for())
        return double(inputs)

    runtime = Obedient()
    batches = await taught(runtime, lane, clock)
    runtime.work = slow
    batches.add([call(lane, 1, arrived=clock())], alone=True)
    assert ages == [2.0]
    assert batches.running_for() == 0


async def test_long_runs_leave_the_loop_from_here_too(lane: Listener, clock: Clock) -> None:
    def slow(inputs: Tensors) -> Tensors:
        clock.pass_ms(1)
        return double(inputs)

    runtime = Obedient()
    batches = await taught(runtime, lane, clock)
    runtime.work = slow
    for id in range(LEAVE):
        batches.add([call(lane, id, arrived=clock())], alone=True)
    assert not batches.pace.on_loop
    batches.add([call(lane, 99, arrived=clock())], alone=True)
    await lane.heard(99)
    assert runtime.threads[-1] != runtime.threads[0]


async def test_wait_and_run_are_counted_apart(lane: Listener, clock: Clock) -> None:
    def slow(inputs: Tensors) -> Tensors:
        clock.pass_ms(3)
        return double(inputs)

    runtime = Obedient()
    batches = await taught(runtime, lane, clock)
    runtime.work = slow
    before = batches.counters.as_dict()
    waiting: Call = call(lane, 1, arrived=clock())
    clock.pass_ms(2)
    batches.add([waiting], alone=True)
    after = batches.counters.as_dict()
    grown = {name: after[name] - before[name] for name in ("queued_ns", "infer_ns", "runs", "rows", "succeeded")}
    assert grown == {"queued_ns": 2_000_000, "infer_ns": 3_000_000, "runs": 1, "rows": 1, "succeeded": 1}
