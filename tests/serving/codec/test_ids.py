"""Ids set apart: whatever a client writes, its answer holds the id that JSON says, and no other is read differently."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.codec import id_of, without_id
from serving.runtimes.runtime import Runtime
from tests.serving.doubles import Listener, Obedient, batcher, call, raw_call, request, spec, turns

pytestmark = pytest.mark.anyio

INPUTS = b'"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1.0]}]}'


@given(st.text())
def test_what_is_set_apart_is_what_json_says(id: str) -> None:
    body = orjson.dumps({"id": id, "inputs": []})
    rest, tag = without_id(body)
    if tag:
        assert id_of(tag) == id
        assert orjson.loads(rest) == {"inputs": []}
        assert orjson.loads(b'{"model_name":"m"%b}' % tag) == {"model_name": "m", "id": id}
    else:
        assert rest == body


@pytest.mark.parametrize("id", [b"7", b"request-0001", b"a b", b"{}[]:,'"])
def test_plain_ids_are_set_apart(id: bytes) -> None:
    rest, tag = without_id(b'{"id":"%b",%b' % (id, INPUTS))
    assert (rest, id_of(tag)) == (b"{" + INPUTS, id.decode())


@pytest.mark.parametrize(
    "body",
    [
        b"{" + INPUTS,
        b'{"id":"",' + INPUTS,
        b'{"id":"a\\"b",' + INPUTS,
        b'{"id":"\x01",' + INPUTS,
        b'{"id":"\xff",' + INPUTS,
        b'{"id":"%b",%b' % (b"x" * 300, INPUTS),
        b'{"id":7,' + INPUTS,
        b'{"id":"7"}',
        b'{"id":"7"',
        b"",
    ],
)
def test_other_bodies_stay_whole(body: bytes) -> None:
    assert without_id(body) == (body, b"")


async def answered(runtime: Runtime, lane: Listener, payloads: list[bytes], alone: bool) -> list[Any]:
    batches = batcher(runtime, spec())
    batches.add([call(lane, 101)])
    await lane.heard(101)
    calls = [raw_call(lane, id, payload) for id, payload in enumerate(payloads, 1)]
    if alone:
        for one in calls:
            batches.add([one], alone=True)
    else:
        batches.add(calls)
    await turns(20)
    for id in range(1, len(payloads) + 1):
        await lane.heard(id)
    return [lane.bodies[id][0] for id in range(1, len(payloads) + 1)]


@pytest.mark.parametrize("alone", [True, False])
async def test_each_answer_holds_the_id_of_its_own_request(lane: Listener, alone: bool) -> None:
    plain = request([1.0])
    numbered = [b'{"id":"%d",%b' % (number, plain[1:]) for number in range(1, 5)]
    bodies = await answered(Obedient(), lane, [*numbered, plain], alone)
    assert [body.get("id") for body in bodies] == ["1", "2", "3", "4", None]
    assert all(body["outputs"] == bodies[-1]["outputs"] for body in bodies)


async def test_the_last_of_two_ids_counts_as_ever(lane: Listener) -> None:
    [body] = await answered(Obedient(), lane, [b'{"id":"a","id":"b",' + request([1.0])[1:]], alone=False)
    assert body["id"] == "b"
