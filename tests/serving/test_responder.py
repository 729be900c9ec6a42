"""What callers are told when a run fails."""

import numpy as np
import pytest

from nstarx.errors import ModelFailed
from nstarx.tensors import Tensors
from tests.serving.doubles import (
    POISON,
    Clock,
    Listener,
    Mode,
    Obedient,
    batcher,
    call,
    spec,
)

pytestmark = pytest.mark.anyio


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
