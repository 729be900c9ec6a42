"""Answers of our replicas, read back."""

import gzip
import math
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.answers import Answer, Output, decode, few, inflated, outputs
from nstarx.tensors import Tensor
from serving.codec import Codec
from tests.serving.codec.samples import echo, same
from tests.serving.codec.strategies import datatypes, patient, tensors


def replica_answer(datatype: str, array: Tensor, binary: bool) -> Answer:
    """What a real replica of a model that echoes would answer."""
    codec = Codec(echo(datatype))
    request = codec.decode(
        orjson.dumps(
            {
                "id": "7",
                "inputs": [{"name": "x", "datatype": datatype, "shape": [1, 0], "data": []}],
                "parameters": {"binary_data_output": binary},
            }
        )
    )
    request.rows = len(array)
    (made,) = codec.encode([request], {"y": array})
    return Answer(200, made.body, made.json_length)


@patient
@given(st.data(), datatypes, st.booleans())
def test_what_a_replica_encodes_is_read_back(data: st.DataObject, datatype: str, binary: bool) -> None:
    array = data.draw(tensors(datatype, json=not binary))
    made = replica_answer(datatype, array, binary)
    assert list(read := decode(made.body, made.json_length)) == ["y"]
    assert same(read["y"], array)


@patient
@given(st.data(), datatypes)
def test_few_elements_are_the_same_as_those_of_the_array(data: st.DataObject, datatype: str) -> None:
    array = data.draw(tensors(datatype, json=True))
    output = outputs(replica_answer(datatype, array, binary=False).body)["y"]
    elements = few(output, output, limit=100)
    assert elements is not None
    expected = output.array().ravel()
    exact = [element.encode() if isinstance(element, str) else element for element in elements[0]]
    assert np.array(exact, np.float32 if datatype == "BF16" else expected.dtype).astype(expected.dtype).tolist() == (
        expected.tolist()
    )


def test_null_is_nan_of_any_floating_point() -> None:
    for datatype in ("FP16", "FP32", "FP64", "BF16"):
        output = Output(datatype, [3], [1.0, None, 2.0])
        assert np.isnan(output.array().astype(np.float64)).tolist() == [False, True, False]
        elements = few(output, output, limit=3)
        assert elements is not None
        assert [math.isnan(element) for element in elements[0]] == [False, True, False]


def test_json_and_binary_outputs_mix() -> None:
    head = orjson.dumps(
        {
            "outputs": [
                {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
                {"name": "b", "datatype": "BOOL", "shape": [2], "data": [True, False]},
                {"name": "c", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}},
                {"name": "d", "datatype": "BF16", "shape": [1], "parameters": {"binary_data_size": 2}},
            ]
        }
    )
    tail = np.array([1.5, -2], "<f4").tobytes() + b"\3\0\0\0abc\0\0\0\0" + np.array([3], ml_dtypes.bfloat16).tobytes()
    read = decode(head + tail, len(head))
    assert read["a"].tolist() == [[1.5, -2.0]]
    assert read["b"].tolist() == [True, False]
    assert read["c"].tolist() == [b"abc", b""]
    assert read["d"].astype(float).tolist() == [3.0]


def test_nested_data_is_the_same_as_flat() -> None:
    nested = Output("INT32", [2, 2], [[1, 2], [3, 4]])
    assert nested.array().tolist() == [[1, 2], [3, 4]]
    assert few(nested, nested, limit=4) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_few_leaves_many_and_binary_to_arrays() -> None:
    many, binary = Output("INT8", [3], [1, 2, 3]), Output("INT8", [1], b"\1")
    assert few(many, many, limit=2) is None
    assert few(binary, binary, limit=2) is None
    assert few(Output("INT8", [1], [1]), binary, limit=2) is None


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (Output("FP31", [1], [1]), "datatype"),
        (Output(["FP32"], [1], [1]), "datatype"),
        (Output(None, [1], [1]), "datatype"),
        (Output("FP32", None, [1]), "shape is a list"),
        (Output("FP32", [-1], [1]), "shape is a list"),
        (Output("FP32", [1.0], [1]), "shape is a list"),
        (Output("FP32", [True], [1]), "shape is a list"),
        (Output("FP32", [2], [1]), "do not fill"),
        (Output("FP32", [1], ["1"]), "not float32"),
        (Output("FP32", [2], [[1], 2]), "unevenly"),
        (Output("FP32", [1], [{}]), "not float32"),
        (Output("INT64", [1], [1.5]), "not int64"),
        (Output("INT64", [1], [None]), "not int64"),
        (Output("BOOL", [1], [1]), "not bool"),
        (Output("BYTES", [1], [b"x"]), "not object"),
        (Output("BYTES", [1], [1]), "not object"),
    ],
)
def test_what_is_no_whole_tensor_is_refused_both_ways(output: Output, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        output.array()
    with pytest.raises(ValueError, match=why):
        few(output, output, limit=10)


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (Output("INT8", [1], [300]), "does not fit INT8"),
        (Output("UINT8", [1], [-1]), "does not fit UINT8"),
        (Output("FP32", [0, 1 << 70], []), "dimension"),
        (Output("FP32", [1], 1), "not a list"),
        (Output("FP32", [1], b"\0\0\0"), "multiple of element size"),
        (Output("FP32", [2], b"\0\0\0\0"), "do not fill"),
        (Output("BYTES", [1], b"\1\0\0"), "inside a length"),
        (Output("BYTES", [1], b"\2\0\0\0x"), "inside an element"),
        (Output("BYTES", [2], b"\1\0\0\0x"), "do not fill"),
    ],
)
def test_array_that_cannot_be_is_refused(output: Output, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        output.array()


def test_refusal_does_not_quote_elements() -> None:
    with pytest.raises(ValueError, match="does not fit") as caught:
        Output("INT8", [1], [31337]).array()
    assert "31337" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "json_length", "why"),
    [
        (b"", None, "empty"),
        (b"{", None, "end of data|EOF"),
        (b"[]", None, "no list of outputs"),
        (b'{"error":"no"}', None, "no list of outputs"),
        (b'{"outputs":{}}', None, "no list of outputs"),
        (b'{"outputs":[1]}', None, "a name of its own"),
        (b'{"outputs":[{"name":1,"data":[]}]}', None, "a name of its own"),
        (b'{"outputs":[{"name":"a","data":[]},{"name":"a","data":[]}]}', None, "a name of its own"),
        (b'{"outputs":[{"name":"a"}]}', None, "neither data nor"),
        (b'{"outputs":[{"name":"a","parameters":{"binary_data_size":true}}]}', None, "neither data nor"),
        (b'{"outputs":[{"name":"a","parameters":{"binary_data_size":-1}}]}', None, "neither data nor"),
        (b'{"outputs":[{"name":"a","parameters":{"binary_data_size":1}}]}', None, "JSON and tensors have"),
        (b'{"outputs":[]}more', 14, "JSON and tensors have"),
        (b'{"outputs":[]}', 15, "are announced"),
        (b'{"outputs":[]}', -1, "are announced"),
        (b'{"outputs":[]}', 0, "empty"),
    ],
)
def test_body_that_is_no_answer_is_refused(body: bytes, json_length: int | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(body, json_length)


@patient
@given(st.binary(), st.none() | st.integers(-5, 100))
def test_any_bytes_are_read_or_refused(body: bytes, json_length: int | None) -> None:
    try:
        decode(body, json_length)
    except ValueError:
        return


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@patient
@given(json_values, json_values, json_values)
def test_any_output_is_read_or_refused(datatype: Any, shape: Any, data: Any) -> None:
    for output in (Output(datatype, shape, data), Output("FP32", shape, data), Output("INT64", [1], data)):
        try:
            output.array()
        except ValueError:
            continue


def test_compressed_answers_are_read() -> None:
    plain = Answer(200, b'{"outputs":[]}')
    for body in (gzip.compress(plain.body), zlib.compress(plain.body), plain.body):
        assert inflated(Answer(200, body)) == plain


@pytest.mark.parametrize("body", [b"\x1f\x8b", b"x\x9c123", gzip.compress(b"{}")[:-1], zlib.compress(b" " * 1000)])
def test_damaged_or_bloated_body_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="a compressed body is"):
        inflated(Answer(200, body), limit=100)
