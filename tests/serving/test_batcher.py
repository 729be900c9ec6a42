"""The batcher: when the next run starts, and that every call comes to exactly one end."""

import asyncio
import threading

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.frames import FLAG_STREAM
from nstarx.spec.model import Batching
from serving.bodies import LARGE
from serving.call import Call
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
SHORT_WAIT = 50.0
"""Passes in a test, but not while a busy machine holds it up between two lines."""


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


# Every call has one end

FATES = ["good", "bad", "poison", "other shape", "large", "expired", "withdrawn", "closed"]


def fated(lanes: dict[str, Listener], clock: Clock, id: int, fate: str, stream: bool) -> Call:
    lane = lanes["gone" if fate == "closed" else "here"]
    if fate == "bad":
        return raw_call(lane, id, b"{}")
    if fate == "large":
        return raw_call(lane, id, request([float(id)]) + b" " * LARGE, FLAG_STREAM if stream else 0)
    rows = {"poison": [POISON], "other shape": [float(id), 0.0]}.get(fate, [float(id)])
    return call(lane, id, rows, stream=stream, expires=clock() if fate == "expired" else 0)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["sync", "async", "stream"]),
    st.booleans(),
    st.lists(st.lists(st.tuples(st.sampled_from(FATES), st.booleans()), max_size=6), min_size=1, max_size=5),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
async def test_every_call_has_exactly_one_end_and_is_counted_once(
    mode: Mode, on_loop: bool, arrivals: list[list[tuple[str, bool]]], most: int, concurrent: int, alone: bool
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
        batches.add(calls, alone)
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
