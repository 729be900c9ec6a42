"""Streams: part by part, or all parts as one answer."""

from collections.abc import AsyncIterator

import pytest

from cluster.frames import FLAG_STREAM
from nstarx.tensors import Tensors
from tests.serving.doubles import (
    POISON,
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
)

pytestmark = pytest.mark.anyio


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
