"""Batches: leaving calls out and splitting them up never mixes up whose rows are whose."""

from collections.abc import Callable

import pytest

from serving.batch import Batch, PlainBatch
from serving.codec import Codec
from tests.serving.doubles import Listener, call, spec

Make = Callable[[Codec, int], Batch]


def plain_batch(codec: Codec, calls: int) -> Batch:
    made = [call(Listener(), id, [float(id)], [id + 0.5]) for id in range(calls)]
    codec.decode(made[0].payload)
    codec.decode(made[0].payload)
    plain = codec.decode_plain([each.payload for each in made])
    assert plain is not None
    return PlainBatch(made, *plain)


def mixed_batch(codec: Codec, calls: int) -> Batch:
    made = [call(Listener(), id, [float(id)], [id + 0.5]) for id in range(calls)]
    requests = [codec.decode(each.payload) for each in made]
    batch = Batch(made[0], requests[0])
    for each, request in zip(made[1:], requests[1:], strict=True):
        batch.add(each, request)
    return batch


def is_whole(batch: Batch) -> bool:
    """Whether its rows are those of its calls, in their order."""
    expected = [row for each in batch.calls for row in ([float(each.id)], [each.id + 0.5])]
    array = batch.inputs()["x"]
    return array.tolist() == expected and batch.rows == len(expected) and not array.flags.writeable


@pytest.mark.parametrize("make", [plain_batch, mixed_batch])
@pytest.mark.parametrize("dropped", [[0], [3], [1, 2], [0, 1, 3]])
def test_calls_left_out_take_their_rows_along(make: Make, dropped: list[int]) -> None:
    batch = make(Codec(spec()), 4)
    rest = batch.without({batch.calls[index] for index in dropped})
    assert [each.id for each in rest.calls] == [id for id in range(4) if id not in dropped]
    assert is_whole(rest)


@pytest.mark.parametrize("make", [plain_batch, mixed_batch])
@pytest.mark.parametrize("calls", [1, 3])
def test_every_call_of_a_batch_can_run_by_itself(make: Make, calls: int) -> None:
    parts = make(Codec(spec()), calls).split()
    assert [[each.id for each in part.calls] for part in parts] == [[id] for id in range(calls)]
    assert all(map(is_whole, parts))


def test_plain_batch_is_cut_into_smaller_ones() -> None:
    batch = plain_batch(Codec(spec()), 5)
    assert isinstance(batch, PlainBatch)
    parts = batch.cut(2)
    assert [len(part.calls) for part in parts] == [2, 2, 1]
    assert all(map(is_whole, parts))


@pytest.mark.parametrize("make", [plain_batch, mixed_batch])
def test_answers_of_a_batch_are_in_the_order_of_its_calls(make: Make) -> None:
    codec = Codec(spec())
    batch = make(codec, 3)
    encoded = batch.encode(codec, {"y": batch.inputs()["x"]})
    bodies = [each if isinstance(each, bytes) else each.body for each in encoded]
    assert [b'"data":[%d.0,%d.5]' % (id, id) in body for id, body in enumerate(bodies)] == [True] * 3
