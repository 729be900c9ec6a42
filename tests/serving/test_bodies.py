"""Large bodies are decoded in a thread: meanwhile everybody else is served, and the call can still end in any way."""

import asyncio
import gzip
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import serving.bodies
from cluster.frames import FLAG_GZIP
from nstarx.tensors import Tensors
from serving.bodies import LARGE
from serving.call import Call
from serving.codec import Codec, InferRequest
from tests.serving.doubles import (
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
    spec,
    turns,
    until,
)

pytestmark = pytest.mark.anyio

WIDE = [0.25] * (LARGE // 4)


def large_call(lane: Listener, id: int, **more: Any) -> Call:
    return raw_call(lane, id, request([1.0]) + b" " * LARGE, **more)


@pytest.fixture
def decoding(shut: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Threads that decode large bodies wait at the door `shut`; these are those that have come there."""
    threads: list[int] = []
    real = serving.bodies.decoded

    def slowly(codec: Codec, call: Call, limit: int) -> InferRequest:
        threads.append(threading.get_ident())
        assert shut.wait(5)
        return real(codec, call, limit)

    monkeypatch.setattr(serving.bodies, "decoded", slowly)
    yield threads
    shut.set()


@pytest.mark.parametrize("mode", ["sync", "async", "stream"])
@pytest.mark.parametrize("alone", [True, False])
async def test_others_are_served_while_a_large_body_is_decoded(
    lane: Listener, decoding: list[int], shut: threading.Event, mode: Mode, alone: bool
) -> None:
    runtime = Obedient(mode)
    batches = batcher(runtime, spec())
    batches.add([large_call(lane, 1)], alone)
    await until(lambda: bool(decoding))
    batches.add([call(lane, 2), call(lane, 3)], alone)
    await lane.heard(2, 3)
    await until(lambda: batches.backlog == 1)
    assert lane.ends(1) == []
    shut.set()
    await lane.heard(1)
    assert lane.rows(1) == [[2]]
    assert threading.get_ident() not in decoding
    await until(lambda: not batches.backlog)
    assert (batches.counters.succeeded, sum(batches.counters.queue)) == (3, 3)


async def test_small_bodies_are_decoded_where_they_are(lane: Listener, decoding: list[int]) -> None:
    batches = batcher(Obedient(), spec())
    payload = request([1.0])
    batches.add([raw_call(lane, 1, payload + b" " * (LARGE - len(payload)))])
    await lane.heard(1)
    assert decoding == []


async def test_run_of_a_large_body_leaves_the_loop_and_says_nothing_about_others(lane: Listener, clock: Clock) -> None:
    def work(inputs: Tensors) -> Tensors:
        clock.pass_ms(100 if inputs["x"].size > 1 else 0)
        return double(inputs)

    runtime = Obedient(work=work)
    batches = batcher(runtime, spec(), clock)
    batches.add([raw_call(lane, 1, request(WIDE))])
    await lane.heard(1)
    batches.add([call(lane, 2)])
    await lane.heard(2)
    assert lane.rows(1) == [[0.5] * len(WIDE)]
    assert runtime.threads[0] != threading.get_ident() == runtime.threads[1]
    assert batches.pace.on_loop


async def test_body_that_is_large_only_when_inflated_is_decoded_apart(
    lane: Listener, decoding: list[int], shut: threading.Event
) -> None:
    batches = batcher(Obedient(), spec())
    payload = gzip.compress(request([1.0]) + b" " * LARGE)
    assert len(payload) < LARGE
    batches.add([raw_call(lane, 1, payload, FLAG_GZIP), raw_call(lane, 2, gzip.compress(request([1.0])), FLAG_GZIP)])
    await lane.heard(2)
    shut.set()
    await lane.heard(1)
    assert len(decoding) == 1
    assert lane.rows(1) == [[2]]


async def test_large_body_that_is_no_request_is_refused(lane: Listener) -> None:
    batches = batcher(Obedient(), spec())
    batches.add(
        [raw_call(lane, 1, b"[" * (LARGE + 1)), raw_call(lane, 2, gzip.compress(b" " * LARGE * 2)[:-9], FLAG_GZIP)]
    )
    await lane.heard(1, 2)
    assert lane.statuses == {1: 400, 2: 400}
    assert (batches.counters.failed, batches.backlog) == (2, 0)


async def test_call_withdrawn_while_its_body_is_decoded_is_not_run(
    lane: Listener, decoding: list[int], shut: threading.Event
) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec())
    batches.add([large_call(lane, 1)])
    await until(lambda: bool(decoding))
    batches.withdraw(lane, 1)
    batches.add([call(lane, 2)])
    await lane.heard(2)
    shut.set()
    await until(lambda: not batches.backlog)
    assert (lane.ends(1), batches.counters.cancelled, len(runtime.runs)) == ([], 1, 1)


async def test_lane_that_closes_while_its_body_is_decoded_costs_no_run(
    lane: Listener, decoding: list[int], shut: threading.Event
) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec())
    batches.add([large_call(lane, 1)])
    await until(lambda: bool(decoding))
    lane.closed = True
    shut.set()
    await until(lambda: not batches.backlog)
    assert (lane.told, batches.counters.cancelled, runtime.runs) == ([], 1, [])


async def test_time_that_runs_out_while_a_body_is_decoded_is_told(
    lane: Listener, clock: Clock, decoding: list[int], shut: threading.Event
) -> None:
    batches = batcher(Obedient(), spec(), clock)
    own = request([1.0], parameters={"timeout": 1000}) + b" " * LARGE
    batches.add([large_call(lane, 1, expires=clock() + 1), raw_call(lane, 2, own, arrived=clock())])
    await until(lambda: bool(decoding))
    clock.pass_ms(2)
    shut.set()
    await lane.heard(1, 2)
    assert (lane.ends(1), lane.ends(2)) == (["expired"], ["expired"])


async def test_bodies_that_are_decoded_take_room(lane: Listener, decoding: list[int], shut: threading.Event) -> None:
    batches = batcher(Obedient(), spec(max_queue_size=2))
    batches.add([large_call(lane, 1), large_call(lane, 2)])
    await until(lambda: bool(decoding))
    batches.add([call(lane, 3)], alone=True)
    assert lane.ends(3) == ["overloaded"]
    shut.set()
    await lane.heard(1, 2)


async def test_replica_that_closes_drops_what_is_decoded(
    lane: Listener, decoding: list[int], shut: threading.Event
) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec())
    batches.add([large_call(lane, 1), large_call(lane, 2)])
    await until(lambda: bool(decoding))
    assert await batches.close(5)
    shut.set()
    await asyncio.sleep(0.01)
    await turns()
    assert (lane.told, runtime.runs, outcomes(batches), batches.backlog) == ([], [], 2, 0)


async def test_large_batch_mate_leaves_the_order_of_the_others_alone(lane: Listener) -> None:
    runtime = Obedient()
    batches = batcher(runtime, spec())
    batches.add([call(lane, 1), large_call(lane, 2), call(lane, 3)])
    await lane.heard(1, 2, 3)
    assert runtime.runs == [[[1], [3]], [[1]]]
