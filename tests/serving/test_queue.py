"""What waits: nothing is run for a caller who has gone away, or whose time is up."""

import threading

import pytest

from nstarx.tensors import Tensors
from tests.serving.doubles import (
    Clock,
    Listener,
    Obedient,
    batcher,
    call,
    double,
    raw_call,
    request,
    rows_of,
    spec,
    turns,
    until,
)

pytestmark = pytest.mark.anyio


async def test_expired_work_is_not_run(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(), clock)
    batches.add([call(lane, 1, expires=clock() + 1), call(lane, 2, expires=clock() + 10_000_000), call(lane, 3)])
    clock.pass_ms(1)
    await lane.heard(1, 2, 3)
    assert lane.ends(1) == ["expired"]
    assert runtime.runs == [[[2], [3]]]


async def test_deadline_in_the_request_itself_holds(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(), clock)
    hasty, patient = (request([1.0], parameters={"timeout": us}) for us in (1000, 60_000_000))
    batches.add([raw_call(lane, id, b, arrived=clock()) for id, b in ((1, hasty), (2, patient))])
    clock.pass_ms(2)
    await lane.heard(1, 2)
    assert [lane.ends(1), lane.ends(2)] == [["expired"], ["answer"]]


async def test_work_that_expires_while_groups_before_it_run_is_not_run(lane: Listener, clock: Clock) -> None:
    def slow(inputs: Tensors) -> Tensors:
        clock.pass_ms(20)
        return double(inputs)

    runtime = Obedient(work=slow)
    batches = batcher(runtime, spec(), clock)
    later = clock() + 10_000_000
    batches.add([call(lane, 1, [1.0]), call(lane, 2, [2.0, 2.0], expires=later), call(lane, 3, [3.0, 3.0])])
    await lane.heard(1, 2, 3)
    assert lane.ends(2) == ["expired"]
    assert runtime.runs == [[[1]], [[3, 3]]]


async def test_withdrawn_work_is_not_run(lane: Listener) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(lane, id) for id in (1, 2, 3)])
    batches.withdraw(lane, 2)
    await lane.heard(1, 3)
    assert runtime.runs == [[[1], [3]]]
    assert lane.ends(2) == []
    assert batches.counters.cancelled == 1
    assert batches.backlog == 0


async def test_withdrawal_is_of_one_lanes_call_alone(lane: Listener) -> None:
    other, runtime = Listener(), Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(lane, 1), call(other, 1)])
    batches.withdraw(other, 1)
    await lane.heard(1)
    assert len(runtime.runs[0]) == 1


async def test_work_withdrawn_while_groups_before_it_run_is_not_run(lane: Listener) -> None:
    def work(inputs: Tensors) -> Tensors:
        batches.withdraw(lane, 2)
        return double(inputs)

    runtime = Obedient(work=work)
    batches = batcher(runtime, spec())
    batches.add([call(lane, 1, [1.0]), call(lane, 2, [2.0, 2.0]), call(lane, 3, [3.0, 3.0, 3.0])])
    await lane.heard(1, 3)
    assert runtime.runs == [[[1]], [[3, 3, 3]]]
    assert batches.counters.cancelled == 1


async def test_withdrawal_that_comes_too_late_does_not_hit_a_later_call_of_the_same_id(
    lane: Listener, clock: Clock, shut: threading.Event
) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(max_batch_size=1), clock, on_loop=False)
    batches.add([call(lane, 7, arrived=clock())])
    await turns()
    batches.add([call(lane, 8, arrived=clock())])
    batches.withdraw(lane, 7)
    clock.pass_ms(1)
    batches.add([call(lane, 7, [70.0], arrived=clock())])
    shut.set()
    await lane.heard(8)
    await until(lambda: len(lane.ends(7)) == 2)
    assert [rows_of(body) for body in lane.bodies[7]] == [[[14]], [[140]]]


async def test_withdrawals_of_a_busy_replica_are_forgotten(lane: Listener, shut: threading.Event) -> None:
    """A queue that never empties must not remember every call that was ever withdrawn too late."""
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(max_queue_size=8), on_loop=False)
    batches.add([call(lane, 1)])
    await turns()
    batches.add([call(lane, 2), call(lane, 3)])
    batches.withdraw(lane, 2)
    for id in range(1000, 2000):
        batches.withdraw(lane, id)
    assert len(batches._queue._withdrawn) <= 16
    shut.set()
    await lane.heard(1, 3)
    assert runtime.runs == [[[1]], [[3]]]
    assert not batches._queue._withdrawn


async def test_work_of_a_closed_lane_is_not_run(lane: Listener) -> None:
    gone, runtime = Listener(), Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(gone, 1), call(lane, 2)])
    gone.closed = True
    await lane.heard(2)
    assert runtime.runs == [[[2]]]
    assert gone.told == []
    assert batches.counters.cancelled == 1
