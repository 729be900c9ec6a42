"""Runs: on the event loop or in a thread, and whatever a model raises, the next run follows."""

import asyncio
import threading

import pytest

from nstarx.tensors import Tensors
from serving.pace import LONG_NS
from tests.serving.doubles import (
    Clock,
    Listener,
    Mode,
    Obedient,
    batcher,
    call,
    double,
    spec,
    turns,
)

pytestmark = pytest.mark.anyio


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
