"""Tensors of every datatype survive both directions, and a batch answers as its requests would alone."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nstarx.tensors import DATATYPES, DTYPES, Tensor
from serving.codec import Answer, Codec, InferRequest, stack
from tests.serving.codec.samples import body, echo, same, x
from tests.serving.codec.strategies import datatypes, patient, tensors

CODECS = {datatype: Codec(echo(datatype)) for datatype in DTYPES}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"id": "7"},
    {"parameters": {"binary_data_output": True}},
    {"outputs": [{"name": "y"}]},
    {"id": "é", "outputs": [{"name": "y", "parameters": {"binary_data": True}}]},
]


def plain(array: Tensor, nested: bool) -> list[Any]:
    listed: list[Any] = array.tolist() if nested else array.ravel().tolist()
    return json.loads(json.dumps(listed, default=bytes.decode))  # type: ignore[no-any-return]


def run(codec: Codec, requests: list[InferRequest]) -> list[Answer]:
    return codec.encode(requests, {"y": stack(requests)["x"]})


def echoed(datatype: str, answer: Answer) -> Tensor:
    """The answer's tensor, read by the codec itself as if it were a request."""
    length = len(answer.body) if answer.json_length is None else answer.json_length
    head, tail = json.loads(answer.body[:length]), answer.body[length:]
    head["inputs"] = [output | {"name": "x"} for output in head.pop("outputs")]
    request = json.dumps(head).encode()
    return CODECS[datatype].decode(request + tail, len(request) if tail else None).inputs["x"]


@patient
@given(st.data(), datatypes, st.booleans())
def test_json_in_json_out(data: st.DataObject, datatype: str, nested: bool) -> None:
    array = data.draw(tensors(datatype, json=True))
    request = CODECS[datatype].decode(body(x(plain(array, nested), array.shape, datatype)))
    assert same(request.inputs["x"], array)
    assert same(echoed(datatype, run(CODECS[datatype], [request])[0]), array)


@patient
@given(st.data(), datatypes)
def test_binary_in_binary_out(data: st.DataObject, datatype: str) -> None:
    array = data.draw(tensors(datatype, json=False, columns=3))
    raw = b"".join(len(e).to_bytes(4, "little") + e for e in array.flat) if datatype == "BYTES" else array.tobytes()
    tensor = x(None, array.shape, datatype, parameters={"binary_data_size": len(raw)})
    head = body(tensor, parameters={"binary_data_output": True})
    request = CODECS[datatype].decode(head + raw, len(head))
    assert same(request.inputs["x"], array)
    (answer,) = run(CODECS[datatype], [request])
    assert answer.body[answer.json_length :] == raw
    assert same(echoed(datatype, answer), array)


@patient
@given(st.data(), datatypes, st.integers(0, 3))
def test_stacked_requests_are_answered_as_each_alone(data: st.DataObject, datatype: str, columns: int) -> None:
    codec = CODECS[datatype]
    arrays = data.draw(st.lists(tensors(datatype, json=True, columns=columns), min_size=1, max_size=5))
    options = data.draw(st.lists(st.sampled_from(OPTIONS), min_size=len(arrays), max_size=len(arrays)))
    requests = [
        codec.decode(body(x(plain(array, nested=False), array.shape, DATATYPES[array.dtype]), **more))
        for array, more in zip(arrays, options, strict=True)
    ]
    assert len({request.group for request in requests}) == 1
    assert run(codec, requests) == [run(codec, [request])[0] for request in requests]
