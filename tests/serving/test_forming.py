"""Forming batches: what arrives together runs together, and a bad body fails alone."""

import gzip

import pytest

from cluster.frames import FLAG_GZIP
from tests.serving.doubles import (
    Listener,
    Obedient,
    batcher,
    call,
    raw_call,
    request,
    spec,
)

pytestmark = pytest.mark.anyio


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
