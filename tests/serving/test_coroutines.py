"""Runs that are coroutines are cancelled with their callers."""

import pytest

from tests.serving.doubles import (
    Listener,
    Mode,
    Obedient,
    batcher,
    call,
    spec,
    turns,
)

pytestmark = pytest.mark.anyio


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
