"""Server-sent events: partial results as they come, errors among them, and clients that leave or dawdle."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from nstarx.repository import Repository
from router.deadlines import expire_overdue
from router.exchange import STREAM_BUFFER
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.test_failures import NEVER, crash
from tests.router.wire import Answer, Wire, codes, connection, connections, flaky, in_flight, in_loop, post

COUNT = "/v2/models/count/infer"
EVENTS = "Accept: text/event-stream"

MODEL = '''
import asyncio
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


class Model:
    """x = [n]: yields 0 to n - 1. Below 0 it fails after one event, at 0.5 it goes on for ever, at 0.25 it floods."""

    async def infer(self, inputs):
        n = float(inputs["x"][0])
        try:
            yield_first = n != 0
            if n == 0.25:
                while True:
                    yield {"y": np.zeros(20000, np.float32)}
                    await asyncio.sleep(0)
            number = 0
            while yield_first and (number < n or n in (0.5, -1)):
                yield {"y": np.array([number], np.float32)}
                number += 1
                if n == -1:
                    raise RuntimeError("lost count")
                if n == 0.5:
                    await asyncio.sleep(0.005)
        finally:
            (HERE / "closed").touch()
'''


@pytest.fixture
def gateway(plane: DataPlaneInProcess, write_model: WriteModel, tmp_path: Path) -> Iterator[Gateway]:
    write_model("count", MODEL)
    plane.repository = Repository(tmp_path)
    plane.replica("count@1.0.0")
    gateway = plane.gateway()
    yield gateway
    plane.until(lambda: in_flight(gateway) == 0)


def was_closed(tmp_path: Path) -> bool:
    return (tmp_path / "count" / "1.0.0" / "closed").exists()


def events(answer: Answer) -> list[float | str]:
    """The numbers of a stream, or its errors."""
    documents = [orjson.loads(event.removeprefix(b"data: ")) for event in answer.body.split(b"\n\n")[:-1]]
    return [d["error"] if "error" in d else d["outputs"][0]["data"][0] for d in documents]


def test_partial_results_come_as_events(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(COUNT, flaky(3.0), EVENTS)).answer()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert (answer.headers["connection"], answer.headers["x-nstarx-version"]) == ("close", "count@1.0.0")
        assert events(answer) == [0.0, 1.0, 2.0]
    assert codes(gateway, "count@1.0.0") == {200: 1}


def test_client_that_takes_no_events_gets_all_of_them_as_one_answer(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(COUNT, flaky(3.0))).answer()
        assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [0.0, 1.0, 2.0])


def test_stream_without_events_is_still_an_answer(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(COUNT, flaky(0.0), EVENTS)).answer()
        assert (answer.status, events(answer)) == (200, [])


def test_error_after_the_first_event_is_the_last_event(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        first, error = events(wire.send(post(COUNT, flaky(-1.0), EVENTS)).answer())
        assert first == 0.0
        assert "lost count" in str(error)


def test_error_before_the_first_event_is_an_ordinary_answer(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(COUNT, b"nonsense", EVENTS)).answer()
        assert answer.status == 400
        assert answer.error


def test_client_that_leaves_a_stream_ends_its_work(plane: DataPlaneInProcess, gateway: Gateway, tmp_path: Path) -> None:
    with Wire(gateway) as wire:
        wire.send(post(COUNT, flaky(0.5), EVENTS))
        assert wire.line() == b"HTTP/1.1 200 OK\r\n"
    plane.until(lambda: was_closed(tmp_path))
    plane.until(lambda: codes(gateway, "count@1.0.0") == {499: 1})


def test_stream_past_its_deadline_ends_with_an_error(
    plane: DataPlaneInProcess, gateway: Gateway, tmp_path: Path
) -> None:
    with Wire(gateway) as wire:
        wire.send(post(COUNT, flaky(0.5), EVENTS))
        plane.until(lambda: bool(connection(wire).active and connection(wire).active.streaming))
        in_loop(plane, lambda: expire_overdue(gateway.all_lanes(), NEVER))
        assert "30 s" in str(events(wire.answer())[-1])
    plane.until(lambda: was_closed(tmp_path))
    assert codes(gateway, "count@1.0.0") == {504: 1}


def test_stream_of_a_replica_that_dies_ends_with_an_error_and_is_not_repeated(
    plane: DataPlaneInProcess, gateway: Gateway
) -> None:
    with Wire(gateway) as wire:
        wire.send(post(COUNT, flaky(0.5), EVENTS))
        plane.until(lambda: bool(connection(wire).active and connection(wire).active.streaming))
        crash(plane, plane.replicas[0])
        assert "died" in str(events(wire.answer())[-1])
    assert codes(gateway, "count@1.0.0") == {503: 1}


def test_client_that_does_not_read_its_stream_is_cut(
    plane: DataPlaneInProcess, gateway: Gateway, tmp_path: Path
) -> None:
    with Wire(gateway, receive_buffer=4096) as wire:
        end = connection(wire)
        wire.send(post(COUNT, flaky(0.25), EVENTS))
        plane.until(lambda: end not in connections(gateway))
    plane.until(lambda: was_closed(tmp_path))
    plane.until(lambda: codes(gateway, "count@1.0.0") == {499: 1})
    assert STREAM_BUFFER < 1 << 24


def test_others_are_answered_while_a_stream_runs(plane: DataPlaneInProcess, gateway: Gateway) -> None:
    with Wire(gateway) as wire, Wire(gateway) as other:
        wire.send(post(COUNT, flaky(0.5), EVENTS))
        plane.until(lambda: bool(connection(wire).active and connection(wire).active.streaming))
        answer = other.send(post(COUNT, flaky(2.0))).answer()
        assert answer.json["outputs"][0]["data"] == [0.0, 1.0]
