"""The batcher: what arrives together runs together, and every call comes to exactly one end."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.frames import FLAG_GZIP, FLAG_STREAM
from nstarx.errors import ModelFailed
from nstarx.spec.model import Batching
from nstarx.tensors import Tensors
from serving.call import Call
from serving.pace import LONG_NS
from tests.serving.doubles import (
    POISON,
    Clock,
    Listener,
    Mode,
    Obedient,
    batcher,
    call,
    double,
    outcomes,
    raw_call,
    request,
    rows_of,
    spec,
    turns,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def lane() -> Listener:
    return Listener()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shut() -> Iterator[threading.Event]:
    """A door that runs in threads wait at; open at last, whatever becomes of the test."""
    door = threading.Event()
    yield door
    door.set()


# Forming batches


async def test_requests_that_arrive_together_run_as_one(lane: Listener) -> None:
    runtime = Obedient()
    batcher(runtime, spec()).add([call(lane, id) for id in (1, 2, 3)])
    await lane.heard(1, 2, 3)
    assert runtime.runs == [[[1], [2], [3]]]
    assert [lane.rows(id) for id in (1, 2, 3)] == [[[2]], [[4]], [[6]]]


async def test_requests_of_one_turn_run_as_one_whichever_lanes_they_came_by(lane: Listener) -> None:
    other, runtime = Listener(), Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(lane, 1)])
    batches.add([call(other, 1, [5.0])])
    await lane.heard(1)
    assert runtime.runs == [[[1], [5]]]
    assert lane.rows(1) == [[2]]
    assert other.rows(1) == [[10]]


async def test_every_answer_of_a_batch_leaves_in_one_write(lane: Listener) -> None:
    batcher(Obedient(), spec()).add([call(lane, id) for id in (1, 2, 3)])
    await lane.heard(1, 2, 3)
    assert lane.flushed == 3


async def test_mixed_shapes_are_grouped_and_never_padded(lane: Listener) -> None:
    runtime = Obedient()
    shapes = [[1.0], [2.0, 2.0], [3.0], [4.0, 4.0], [5.0, 5.0, 5.0]]
    batcher(runtime, spec()).add([call(lane, id, row) for id, row in enumerate(shapes)])
    await lane.heard(*range(5))
    assert runtime.runs == [[[1], [3]], [[2, 2], [4, 4]], [[5, 5, 5]]]
    assert [lane.rows(id) for id in range(5)] == [[[2 * value for value in row]] for row in shapes]


async def test_max_batch_size_counts_rows_and_not_requests(lane: Listener) -> None:
    runtime = Obedient()
    batcher(runtime, spec(max_batch_size=4)).add([call(lane, id, *[[float(id)]] * 2) for id in range(1, 6)])
    await lane.heard(*range(1, 6))
    assert [len(run) for run in runtime.runs] == [4, 4, 2]
    assert [lane.rows(id) for id in range(1, 6)] == [[[2.0 * id]] * 2 for id in range(1, 6)]


async def test_request_with_more_rows_than_a_batch_runs_alone(lane: Listener) -> None:
    runtime = Obedient()
    calls = [call(lane, 1), call(lane, 2, *[[2.0]] * 9), call(lane, 3)]
    batcher(runtime, spec(max_batch_size=4)).add(calls)
    await lane.heard(1, 2, 3)
    assert sorted(len(run) for run in runtime.runs) == [1, 1, 9]


async def test_version_with_a_fixed_first_dimension_is_never_batched(lane: Listener) -> None:
    model = spec()
    fixed = tuple(tensor.model_copy(update={"shape": (1, -1)}) for tensor in model.inputs)
    runtime = Obedient()
    batcher(runtime, model.model_copy(update={"inputs": fixed})).add([call(lane, id) for id in (1, 2, 3)])
    await lane.heard(1, 2, 3)
    assert runtime.runs == [[[1]], [[2]], [[3]]]


async def test_what_arrives_during_a_run_becomes_the_next_batch(lane: Listener, shut: threading.Event) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(), on_loop=False)
    batches.add([call(lane, 1)])
    await turns()
    batches.add([call(lane, 2)])
    await turns()
    batches.add([call(lane, 3)])
    await turns()
    shut.set()
    await lane.heard(1, 2, 3)
    assert runtime.runs == [[[1]], [[2], [3]]]


async def test_no_run_waits_for_company_unless_told_to(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batcher(runtime, spec(max_wait_ms=0), clock).add([call(lane, 1, arrived=clock())])
    await turns()
    assert runtime.runs == [[[1]]]


# max_wait_ms

LONG_WAIT = 3_600_000.0
SHORT_WAIT = 5.0


async def test_run_waits_for_company_as_long_as_it_may(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(max_wait_ms=SHORT_WAIT), clock)
    batches.add([call(lane, 1, arrived=clock())])
    await turns()
    batches.add([call(lane, 2, arrived=clock())])
    await turns()
    assert runtime.runs == []
    await lane.heard(1, 2)
    assert runtime.runs == [[[1], [2]]]


async def test_full_batch_waits_no_longer(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(max_batch_size=2, max_wait_ms=LONG_WAIT), clock)
    batches.add([call(lane, 1, arrived=clock())])
    await turns()
    batches.add([call(lane, 2, arrived=clock())])
    await lane.heard(1, 2)
    assert runtime.runs == [[[1], [2]]]


async def test_wait_begins_when_the_oldest_call_arrives_and_not_when_a_run_ends(lane: Listener, clock: Clock) -> None:
    runtime = Obedient("async")
    runtime.gate.clear()
    batches = batcher(runtime, spec(max_batch_size=2, max_wait_ms=LONG_WAIT), clock)
    batches.add([call(lane, id, arrived=clock()) for id in (1, 2)])
    await turns()
    batches.add([call(lane, 3, arrived=clock())])
    clock.pass_ms(LONG_WAIT)
    runtime.gate.set()
    await lane.heard(1, 2, 3)
    assert runtime.runs == [[[1], [2]], [[3]]]


async def test_shorter_wait_holds_for_what_waits_already(lane: Listener, clock: Clock) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(max_wait_ms=LONG_WAIT), clock)
    batches.add([call(lane, 1, arrived=clock())])
    await turns()
    batches.configure(Batching(max_batch_size=64, max_wait_ms=0))
    await lane.heard(1)
    batches.configure(Batching(max_batch_size=64, max_wait_ms=LONG_WAIT))
    batches.add([call(lane, 2, arrived=clock())])
    await turns()
    assert runtime.runs == [[[1]]]
    batches.configure(Batching(max_batch_size=64, max_wait_ms=SHORT_WAIT))
    await lane.heard(2)
    assert await batches.close(5)


async def test_smaller_batches_hold_from_the_next_batch_on(lane: Listener) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec(max_batch_size=64))
    batches.configure(Batching(max_batch_size=2))
    batches.add([call(lane, id) for id in range(1, 6)])
    await lane.heard(*range(1, 6))
    assert [len(run) for run in runtime.runs] == [2, 2, 1]


# Bad requests


async def test_undecodable_request_fails_alone(lane: Listener) -> None:
    runtime = Obedient()
    batcher(runtime, spec()).add([call(lane, 1), raw_call(lane, 2, b"{not json"), call(lane, 3)])
    await lane.heard(1, 2, 3)
    assert lane.statuses == {1: 200, 2: 400, 3: 200}
    assert "not valid JSON" in lane.error(2)
    assert runtime.runs == [[[1], [3]]]


async def test_damaged_compression_fails_alone(lane: Listener) -> None:
    good, bad = gzip.compress(request([2.0])), gzip.compress(request([3.0]))[:-9]
    batcher(Obedient(), spec()).add([raw_call(lane, id, b, FLAG_GZIP) for id, b in ((1, good), (2, bad))])
    await lane.heard(1, 2)
    assert lane.statuses == {1: 200, 2: 400}
    assert lane.rows(1) == [[4]]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("on_loop", [True, False])
async def test_request_that_makes_a_batch_fail_fails_alone(lane: Listener, mode: Mode, on_loop: bool) -> None:
    runtime = Obedient(mode)
    batches = batcher(runtime, spec(), on_loop=on_loop)
    batches.add([call(lane, 1), call(lane, 2, [POISON]), call(lane, 3)])
    await lane.heard(1, 2, 3)
    assert lane.statuses == {1: 200, 2: 500, 3: 200}
    assert [lane.rows(1), lane.rows(3)] == [[[2]], [[6]]]
    assert runtime.runs == [[[1], [POISON], [3]], [[1]], [[POISON]], [[3]]]
    assert (batches.counters.succeeded, batches.counters.failed) == (2, 1)


async def test_order_is_kept_when_a_batch_is_repeated(lane: Listener) -> None:
    batches = batcher(Obedient(), spec(max_batch_size=3))
    batches.add([call(lane, 1, [POISON]), *[call(lane, id) for id in range(2, 8)]])
    await lane.heard(*range(1, 8))
    assert [id for id, _ in lane.told] == list(range(1, 8))


async def test_exception_of_a_model_reaches_the_client_as_one_line(
    lane: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    batcher(Obedient(), spec()).add([call(lane, 1, [POISON])])
    await lane.heard(1)
    assert lane.error(1) == "sample@1.0.0 failed: ValueError: poison"
    assert "line two" in caplog.text
    assert "Traceback" in caplog.text


async def test_failing_model_does_not_flood_the_log(
    lane: Listener, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.pass_ms(5000)
    batches = batcher(Obedient(), spec(), clock)
    batches.add([call(lane, id, [POISON]) for id in range(9)])
    await lane.heard(*range(9))
    assert len(caplog.records) == 1


async def test_answer_that_does_not_fit_the_signature_is_the_models_failure(lane: Listener) -> None:
    runtime = Obedient(work=lambda inputs: {"y": inputs["x"].astype(np.int64)})
    batcher(runtime, spec(), on_loop=False).add([call(lane, 1)])
    await lane.heard(1)
    assert lane.statuses == {1: 500}
    assert lane.error(1) == "sample@1.0.0 failed: output 'y' has dtype int64, but the signature says FP32"


async def test_error_with_a_sentence_of_its_own_keeps_it(lane: Listener) -> None:
    def refuse(inputs: Tensors) -> Tensors:
        raise ModelFailed("sample@1.0.0", "out of memory")

    batcher(Obedient(work=refuse), spec()).add([call(lane, 1)])
    await lane.heard(1)
    assert lane.error(1) == "sample@1.0.0 failed: out of memory"


class Unspeakable(Exception):
    """An exception that can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("mode", ["sync", "async", "stream"])
@pytest.mark.parametrize("on_loop", [True, False])
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (StopIteration("next of nothing"), "StopIteration"),
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError"),
        (Unspeakable(), "Unspeakable"),
        (ValueError("\udcff"), "ValueError: ?"),
        (MemoryError(), "MemoryError"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_a_model_raises_is_answered_and_the_next_run_follows(
    lane: Listener, mode: Mode, on_loop: bool, error: BaseException, sentence: str
) -> None:
    def once(inputs: Tensors) -> Tensors:
        if len(runtime.runs) == 1:
            raise error
        return double(inputs)

    runtime = Obedient(mode, work=once)
    batches = batcher(runtime, spec(), on_loop=on_loop)
    batches.add([call(lane, 1)])
    await lane.heard(1)
    batches.add([call(lane, 2)])
    await lane.heard(2)
    assert lane.statuses == {1: 500, 2: 200}
    assert sentence in lane.error(1)
    await turns()
    assert batches.backlog == 0
    assert (batches.counters.failed, batches.counters.succeeded, batches.counters.cancelled) == (1, 1, 0)


# Bounds


async def test_calls_beyond_the_queue_are_turned_away_at_once(lane: Listener) -> None:
    batches = batcher(Obedient(), spec(max_queue_size=3))
    batches.add([call(lane, id) for id in range(1, 6)])
    assert lane.told == [(4, "overloaded"), (5, "overloaded")]
    assert lane.flushed == 2
    batches.add([call(lane, 6)])
    assert lane.told[2:] == [(6, "overloaded")]
    await lane.heard(1, 2, 3)
    assert batches.counters.rejected == 3
    batches.add([call(lane, 7)])
    await lane.heard(7)


async def test_calls_that_run_take_room_too_each_of_a_batch(lane: Listener, shut: threading.Event) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(max_queue_size=3), on_loop=False)
    batches.add([call(lane, id) for id in (1, 2, 3)])
    await turns()
    assert batches.backlog == 3
    batches.add([call(lane, 4)])
    assert lane.told == [(4, "overloaded")]
    shut.set()
    await lane.heard(1, 2, 3)
    assert batches.backlog == 0


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
    assert len(batches._withdrawn) <= 16
    shut.set()
    await lane.heard(1, 3)
    assert runtime.runs == [[[1]], [[3]]]
    assert not batches._withdrawn


async def test_work_of_a_closed_lane_is_not_run(lane: Listener) -> None:
    gone, runtime = Listener(), Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(gone, 1), call(lane, 2)])
    gone.closed = True
    await lane.heard(2)
    assert runtime.runs == [[[2]]]
    assert gone.told == []
    assert batches.counters.cancelled == 1


async def test_replica_that_closes_drops_what_waits(lane: Listener, shut: threading.Event) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(), on_loop=False)
    batches.add([call(lane, 1)])
    await turns()
    batches.add([call(lane, 2)])
    closing = asyncio.create_task(batches.close(5))
    await turns()
    assert not closing.done(), "a run is under way"
    shut.set()
    assert await closing
    assert runtime.runs == [[[1]]]
    assert outcomes(batches) == 2


async def test_replica_that_closes_leaves_a_run_behind_that_does_not_end(lane: Listener, shut: threading.Event) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(), on_loop=False)
    batches.add([call(lane, 1)])
    await turns()
    assert not await batches.close(0.01)


@pytest.mark.parametrize("mode", ["async", "stream"])
async def test_replica_that_closes_cancels_its_coroutines(lane: Listener, mode: Mode) -> None:
    runtime = Obedient(mode)
    runtime.gate.clear()
    batches = batcher(runtime, spec())
    batches.add([call(lane, 1), call(lane, 2)])
    await until(lambda: bool(runtime.runs))
    assert await batches.close(5)
    assert (runtime.now, outcomes(batches)) == (0, 2)


# Where runs take place


async def test_long_run_leaves_the_loop_and_the_loop_stays_live(lane: Listener, shut: threading.Event) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.pace.note(LONG_NS + 1)
    batches.add([call(lane, 1)])
    await turns()
    assert threading.get_ident() not in runtime.threads
    assert lane.told == []
    assert batches.running_for() > 0
    shut.set()
    await lane.heard(1)
    assert batches.running_for() == 0


async def test_slow_model_that_fails_leaves_the_loop_too(lane: Listener, clock: Clock) -> None:
    def fail_slowly(inputs: Tensors) -> Tensors:
        clock.pass_ms(100)
        raise ValueError("slow and wrong")

    runtime = Obedient(work=fail_slowly)
    batches = batcher(runtime, spec(), clock)
    batches.add([call(lane, 1)])
    await lane.heard(1)
    batches.add([call(lane, 2)])
    await lane.heard(2)
    assert runtime.threads[0] == threading.get_ident() != runtime.threads[1]


async def test_age_of_the_oldest_run_can_be_asked_from_any_thread(
    lane: Listener, clock: Clock, shut: threading.Event
) -> None:
    runtime = Obedient(work=lambda inputs: double(inputs) if shut.wait(5) else {})
    batches = batcher(runtime, spec(max_batch_size=1, max_concurrent_runs=2), clock, on_loop=False)
    batches.add([call(lane, 1)])
    await turns()
    clock.pass_ms(3000)
    batches.add([call(lane, 2)])
    await turns()
    clock.pass_ms(1000)
    assert await asyncio.to_thread(batches.running_for) == 4.0
    shut.set()
    await lane.heard(1, 2)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_runs_at_a_time_are_bounded(lane: Listener, mode: Mode, shut: threading.Event) -> None:
    runtime = Obedient(mode, work=lambda inputs: double(inputs) if shut.wait(5) else {})
    runtime.gate.clear()
    batches = batcher(runtime, spec(max_batch_size=1, max_concurrent_runs=3), on_loop=False)
    batches.add([call(lane, id) for id in range(8)])
    await turns(20)
    assert len(batches._running) == 3
    shut.set()
    runtime.gate.set()
    await lane.heard(*range(8))
    assert runtime.most <= 3


# Coroutines


async def test_withdrawn_coroutine_is_cancelled_and_makes_room(lane: Listener) -> None:
    runtime = Obedient("async")
    runtime.gate.clear()
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1), call(lane, 2)])
    await turns()
    batches.withdraw(lane, 1)
    runtime.gate.set()
    await lane.heard(2)
    assert lane.ends(1) == []
    assert batches.counters.cancelled == 1


@pytest.mark.parametrize("mode", ["async", "stream"])
async def test_call_withdrawn_before_its_coroutine_began_is_counted(lane: Listener, mode: Mode) -> None:
    batches = batcher(Obedient(mode), spec())
    batches.add([call(lane, 1)])
    batches._next()
    batches.withdraw(lane, 1)
    await turns()
    assert batches.counters.cancelled == 1
    assert batches.backlog == 0
    assert lane.told == []


async def test_coroutines_of_a_lost_lane_are_cancelled(lane: Listener) -> None:
    gone, runtime = Listener(), Obedient("async")
    runtime.gate.clear()
    batches = batcher(runtime, spec(max_batch_size=1, max_concurrent_runs=2))
    batches.add([call(gone, 1), call(lane, 1)])
    await turns()
    gone.closed = True
    batches.forsake(gone)
    runtime.gate.set()
    await lane.heard(1)
    assert gone.told == []
    assert batches.counters.cancelled == 1


# Streams


async def test_stream_comes_in_parts(lane: Listener) -> None:
    runtime = Obedient("stream")
    runtime.parts = 3
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1, stream=True)])
    await lane.heard(1)
    assert [what for _, what in lane.told] == ["chunk", "chunk", "chunk", "end"]
    assert [rows_of(part) for part in lane.bodies[1]] == [[[2]]] * 3
    assert batches.counters.succeeded == 1


async def test_client_that_takes_no_stream_gets_all_parts_as_one_answer(lane: Listener) -> None:
    runtime = Obedient("stream")
    runtime.parts = 3
    batcher(runtime, spec(max_batch_size=1)).add([call(lane, 1)])
    await lane.heard(1)
    assert lane.told == [(1, "answer")]
    assert lane.rows(1) == [[2]] * 3


async def test_streams_of_a_batchable_version_each_run_by_themselves(lane: Listener) -> None:
    """Were they batched, only the first of each batch would be answered."""
    runtime = Obedient("stream")
    runtime.parts = 2
    batcher(runtime, spec(max_batch_size=64)).add([call(lane, 1), call(lane, 2), call(lane, 3, stream=True)])
    await lane.heard(1, 2, 3)
    assert [lane.rows(1), lane.rows(2)] == [[[2]] * 2, [[4]] * 2]
    assert len(lane.bodies[3]) == 2


async def test_stream_that_fails_before_its_first_part_is_an_ordinary_error(lane: Listener) -> None:
    batches = batcher(Obedient("stream"), spec(max_batch_size=1))
    batches.add([call(lane, 1, [POISON], stream=True)])
    await lane.heard(1)
    assert lane.told == [(1, "answer")]
    assert lane.statuses == {1: 500}
    assert (batches.counters.succeeded, batches.counters.failed) == (0, 1)


async def test_stream_that_fails_later_says_so_and_ends(lane: Listener) -> None:
    def twice(inputs: Tensors) -> Tensors:
        if len(runtime.runs) > 2:
            raise ValueError("no more\nat all")
        return double(inputs)

    runtime = Obedient("stream", work=twice)
    runtime.parts = 5
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1, stream=True)])
    await lane.heard(1)
    assert [what for _, what in lane.told] == ["chunk", "chunk", "chunk", "end"]
    assert lane.error(1) == "sample@1.0.0 failed: ValueError: no more"
    assert (batches.counters.succeeded, batches.counters.failed) == (0, 1)


async def test_stream_of_nothing_is_a_failure_where_it_is_one_answer(lane: Listener) -> None:
    runtime = Obedient("stream")
    runtime.parts = 0
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1), call(lane, 2, stream=True)])
    await lane.heard(1, 2)
    assert lane.statuses == {1: 500}
    assert lane.told == [(1, "answer"), (2, "end")]
    assert (batches.counters.succeeded, batches.counters.failed) == (1, 1)


async def test_stream_of_binary_outputs_is_refused(lane: Listener) -> None:
    payload = request([1.0], parameters={"binary_data_output": True})
    batcher(Obedient("stream"), spec(max_batch_size=1)).add([raw_call(lane, 1, payload, FLAG_STREAM)])
    await lane.heard(1)
    assert lane.statuses == {1: 400}


async def test_withdrawn_stream_ends_without_another_word(lane: Listener) -> None:
    runtime = Obedient("stream")
    runtime.parts = 1_000_000
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1, stream=True)])
    await turns()
    runtime.gate.clear()
    await turns()
    heard = len(lane.told)
    assert heard > 0
    batches.withdraw(lane, 1)
    await turns()
    assert len(lane.told) == heard
    assert (batches.counters.cancelled, batches.backlog, runtime.now) == (1, 0, 0)


async def test_stream_waits_for_a_client_that_reads_slowly(lane: Listener, clock: Clock) -> None:
    runtime = Obedient("stream")
    runtime.parts = 3
    lane.writable.clear()
    batches = batcher(runtime, spec(max_batch_size=1), clock)
    batches.add([call(lane, 1, stream=True)])
    await turns(20)
    assert len(runtime.runs) == 1
    clock.pass_ms(60_000)
    assert batches.running_for() == 0, "it is the client that hangs, not the model"
    lane.writable.set()
    await lane.heard(1)
    assert len(runtime.runs) == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_stream_of_a_model_that_awaits_nothing_leaves_the_loop_live(lane: Listener, stream: bool) -> None:
    runtime = Obedient("stream")
    runtime.parts = 1000
    batcher(runtime, spec(max_batch_size=1)).add([call(lane, 1, stream=stream)])
    await turns(20)
    assert 0 < len(runtime.runs) < 20
    await lane.heard(1)


async def test_long_stream_does_not_hang_while_its_parts_come(lane: Listener, clock: Clock) -> None:
    ages = []

    def work(inputs: Tensors) -> Tensors:
        clock.pass_ms(10_000)
        ages.append(batches.running_for())
        return double(inputs)

    runtime = Obedient("stream", work=work)
    runtime.parts = 4
    batches = batcher(runtime, spec(max_batch_size=1), clock)
    batches.add([call(lane, 1, stream=True)])
    await lane.heard(1)
    assert ages == [10.0] * 4


class EndlessThenClosed(Obedient):
    """Streams until it is told to stop, and remembers that it was."""

    async def infer_stream(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        try:
            while True:
                yield double(inputs)
        finally:
            self.closed = True


async def test_model_learns_that_its_stream_was_withdrawn(lane: Listener) -> None:
    runtime = EndlessThenClosed("stream")
    lane.writable.clear()
    batches = batcher(runtime, spec(max_batch_size=1))
    batches.add([call(lane, 1, stream=True)])
    await turns()
    batches.withdraw(lane, 1)
    await turns()
    assert runtime.closed


# Every call has one end

FATES = ["good", "bad", "poison", "other shape", "expired", "withdrawn", "closed"]


def fated(lanes: dict[str, Listener], clock: Clock, id: int, fate: str, stream: bool) -> Call:
    lane = lanes["gone" if fate == "closed" else "here"]
    if fate == "bad":
        return raw_call(lane, id, b"{}")
    rows = {"poison": [POISON], "other shape": [float(id), 0.0]}.get(fate, [float(id)])
    return call(lane, id, rows, stream=stream, expires=clock() if fate == "expired" else 0)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["sync", "async", "stream"]),
    st.booleans(),
    st.lists(st.lists(st.tuples(st.sampled_from(FATES), st.booleans()), max_size=6), min_size=1, max_size=5),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([1, 2]),
)
async def test_every_call_has_exactly_one_end_and_is_counted_once(
    mode: Mode, on_loop: bool, arrivals: list[list[tuple[str, bool]]], most: int, concurrent: int
) -> None:
    lanes, clock = {"here": Listener(), "gone": Listener()}, Clock()
    batches = batcher(
        Obedient(mode), spec(most, max_queue_size=12, max_concurrent_runs=concurrent), clock, on_loop=on_loop
    )
    lanes["gone"].closed = True
    fates: dict[int, str] = {}
    for arrival in arrivals:
        calls = [fated(lanes, clock, len(fates) + n, fate, stream) for n, (fate, stream) in enumerate(arrival)]
        fates.update({each.id: fate for each, (fate, _) in zip(calls, arrival, strict=True)})
        batches.add(calls)
        for each in calls:
            if fates[each.id] == "withdrawn":
                batches.withdraw(each.lane, each.id)
        await turns(2)
    await until(lambda: not batches.backlog)
    here, expected = lanes["here"], {"expired": "expired", "good": "answer", "bad": "answer", "poison": "answer"}
    for id, fate in fates.items():
        ends = here.ends(id)
        silent_end = fate in ("closed", "withdrawn")
        assert len(ends) == 1 or (silent_end and not ends)
        assert ends in ([], ["overloaded"], [expected.get(fate, "answer")], ["end"])
    _check_answers(here, fates)
    assert outcomes(batches) == len(fates)
    assert await batches.close(5)


def _check_answers(lane: Listener, fates: dict[int, str]) -> None:
    for id, status in lane.statuses.items():
        assert status == {"bad": 400, "poison": 500}.get(fates[id], 200)
        if status == 200:
            assert rows_of(lane.bodies[id][0])[0][0] == 2 * id


async def test_counters_say_how_many_rows_ran_together(lane: Listener) -> None:
    batches = batcher(Obedient(), spec())
    batches.add([call(lane, 1), call(lane, 2, [1.0], [2.0])])
    await lane.heard(1, 2)
    counted = batches.counters.as_dict()
    assert (counted["rows"], counted["runs"], counted["batches"]) == (3, 1, {3: 1})
    assert sum(counted["queue"]) == 2
    assert sum(counted["run"]) == 1
    assert orjson.dumps(counted, option=orjson.OPT_NON_STR_KEYS)
