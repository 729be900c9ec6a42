"""Heads that were parsed before: a client that repeats itself is understood without the parser, and never wrongly."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.gateway import Gateway
from router.head import Head
from router.heads import LONGEST, MOST, Heads, KnownHead
from tests.in_process import DataPlaneInProcess
from tests.router.wire import IRIS, Wire, chunked, connection, iris, post, request

SHARED = settings(
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NOBODY: Any = None
FLOWERS = (b"5.1,3.5,1.4,0.2", b"6.0,2.9,4.5,1.5", b"6.3,3.3,6.0,2.5")


def flower(label: int) -> bytes:
    """A request whose answer holds the label, all of one length."""
    body = b'{"id":"%d","inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[%b]}]}' % (label, FLOWERS[label])
    return post(IRIS, body)


def label(answer: Any) -> tuple[str, int]:
    return answer.json["id"], answer.json["outputs"][0]["data"][0]


def test_a_repeated_head_is_understood_without_the_parser(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        assert label(wire.send(flower(0)).answer()) == ("0", 0)
        connection(wire).parser = NOBODY
        assert label(wire.send(flower(1)).answer()) == ("1", 1)
        assert label(wire.send(flower(2)).answer()) == ("2", 2)


def test_another_connection_profits(gateway: Gateway) -> None:
    with Wire(gateway) as first, Wire(gateway) as second:
        first.send(flower(0)).answer()
        assert second.is_usable()
        connection(second).parser = NOBODY
        assert label(second.send(flower(1)).answer()) == ("1", 1)


@SHARED
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=5), data=st.data())
def test_however_they_are_cut_each_gets_its_answer(gateway: Gateway, labels: list[int], data: st.DataObject) -> None:
    stream = b"".join(map(flower, labels))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=6)))
    with Wire(gateway) as wire:
        wire.send(flower(0)).answer()
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            wire.send(stream[start:stop])
        assert [label(wire.answer()) for _ in labels] == [(str(number), number) for number in labels]


def test_requests_of_which_only_the_head_is_known_are_parsed(gateway: Gateway) -> None:
    whole = flower(1)
    end = whole.index(b"\r\n\r\n") + 4
    with Wire(gateway) as wire:
        wire.send(flower(0)).answer()
        wire.send(whole[:end])
        assert label(wire.send(whole[end:]).answer()) == ("1", 1)
        wire.send(whole + flower(2))
        assert [label(wire.answer()) for _ in range(2)] == [("1", 1), ("2", 2)]


@pytest.mark.parametrize(
    "sent",
    [
        post(IRIS, iris(), "Connection: close"),
        request("POST", IRIS, "Transfer-Encoding: chunked") + chunked(iris(), 50),
        post(IRIS, b""),
        post(IRIS, iris(), "Content-Type: text/plain"),
        post(IRIS, iris(), "Expect: 100-continue"),
    ],
    ids=["close", "chunked", "empty", "refused", "expect"],
)
def test_particular_heads_are_not_remembered(plane: DataPlaneInProcess, sent: bytes) -> None:
    plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with Wire(gateway) as wire:
        wire.send(sent).line()
    assert not gateway.heads


def test_line_ends_before_a_request_are_no_head(gateway: Gateway) -> None:
    with Wire(gateway) as wire:
        wire.send(flower(0)).answer()
        for lines in range(1, 60):
            wire.send(b"\r\n" * lines)
        assert label(wire.send(flower(1)).answer()) == ("1", 1)
    assert all(head.startswith(b"POST ") for head in gateway.heads)


def test_a_new_snapshot_is_obeyed_by_the_next_request(plane: DataPlaneInProcess) -> None:
    first = plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with Wire(gateway) as wire:
        wire.send(flower(0)).answer()
        assert wire.send(flower(0)).answer().headers["x-nstarx-version"] == "iris@1.0.0"
        plane.replica("iris@1.1.0")
        plane.call(first.stop())
        plane.settle(gateway)
        assert wire.send(flower(0)).answer().headers["x-nstarx-version"] == "iris@1.1.0"


def test_memory_is_bounded() -> None:
    heads = Heads()
    known = KnownHead(NOBODY, Head(), 1, b"", {}, b"/")
    heads.learn(b"x" * (LONGEST + 1), known)
    assert not heads
    for number in range(3 * MOST):
        heads.learn(b"%d" % number, known)
        assert b"%d" % number in heads
        assert len(heads) <= MOST
