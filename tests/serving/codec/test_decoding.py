"""What well-formed requests become."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from nstarx.errors import InvalidTensor
from nstarx.tensors import DTYPES
from serving.codec import Codec, RequestedOutput, stack
from tests.serving.codec.samples import body, echo, iris, model, same, tensor, x

ROW = np.array([[5.1, 3.5, 1.4, 0.2]], dtype=np.float32)
ONE_OUTPUT = [tensor("y", "FP32", -1, 1)]


def test_common_request() -> None:
    request = Codec(iris()).decode(body(x()))
    assert list(request.inputs) == ["x"]
    assert same(request.inputs["x"], ROW)
    assert (request.id, request.outputs, request.binary, request.timeout_s) == (None, None, False, None)
    assert (request.rows, request.parameters) == (1, {})


@pytest.mark.parametrize("data", [[5.1, 3.5, 1.4, 0.2], [[5.1, 3.5, 1.4, 0.2]]], ids=["flat", "nested"])
def test_data_may_be_flat_or_nested(data: list[object]) -> None:
    assert same(Codec(iris()).decode(body(x(data))).inputs["x"], ROW)


def test_nested_data_is_row_major() -> None:
    spec = model([tensor("x", "INT8", -1, 2, -1)], ONE_OUTPUT)
    request = Codec(spec).decode(body(x([[[1, 2, 3], [4, 5, 6]]], [1, 2, 3], "INT8")))
    assert request.inputs["x"].tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_scalar() -> None:
    request = Codec(model([tensor("x", "INT32")], ONE_OUTPUT)).decode(body(x([7], [], "INT32")))
    assert same(request.inputs["x"], np.array(7, dtype=np.int32))


@pytest.mark.parametrize("data", [[], [[], []]], ids=["flat", "nested"])
def test_rows_without_elements(data: list[object]) -> None:
    request = Codec(echo("FP32")).decode(body(x(data, [2, 0])))
    assert request.inputs["x"].shape == (2, 0)
    assert request.rows == 2


def test_version_that_does_not_batch_takes_an_empty_first_dimension() -> None:
    request = Codec(iris(max_batch_size=1)).decode(body(x([], [0, 4])))
    assert request.inputs["x"].shape == (0, 4)
    assert (request.rows, request.group) == (0, None)


def test_options() -> None:
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}, {"name": "label"}]
    parameters = {"binary_data_output": True, "timeout": 1500, "priority": 1, "who": "me"}
    request = Codec(iris()).decode(body(x(), id='7 "é', outputs=outputs, parameters=parameters))
    assert request.id == '7 "é'
    assert request.binary
    assert request.outputs == (RequestedOutput("probabilities", False), RequestedOutput("label", True))
    assert request.parameters == parameters
    assert request.timeout_s == 0.0015


def test_options_that_are_null_or_empty_count_as_absent() -> None:
    request = Codec(iris()).decode(body(x(), id=None, outputs=None, parameters=None))
    assert (request.id, request.outputs, request.parameters) == (None, None, {})
    request = Codec(iris()).decode(body(x(), outputs=[], parameters={"timeout": 0}))
    assert (request.outputs, request.timeout_s) == (None, None)


def test_parameters_of_one_request_are_not_those_of_another() -> None:
    codec = Codec(iris())
    first, second = codec.decode(body(x())), codec.decode(body(x()))
    first.parameters["a"] = 1
    assert second.parameters == {}


def test_optional_input_may_be_missing() -> None:
    codec = Codec(model([tensor("x", "FP32", -1, 4), tensor("z", "INT8", -1, optional=True)], ONE_OUTPUT))
    alone = codec.decode(body(x()))
    both = codec.decode(body(x(), x([1], [1], "INT8", name="z")))
    assert list(alone.inputs) == ["x"]
    assert list(both.inputs) == ["x", "z"]
    assert alone.group != both.group


def test_requests_of_one_group_stack() -> None:
    codec = Codec(iris())
    requests = [codec.decode(body(x())), codec.decode(body(x(list(range(8)), [2, 4])))]
    assert requests[0].group == requests[1].group
    stacked = stack(requests)["x"]
    assert same(stacked, np.concatenate([ROW, np.arange(8, dtype=np.float32).reshape(2, 4)]))


def test_order_of_inputs_does_not_part_a_group() -> None:
    codec = Codec(model([tensor("x", "FP32", -1), tensor("z", "FP32", -1)], ONE_OUTPUT))
    left = codec.decode(body(x([1], [1]), x([2], [1], name="z")))
    right = codec.decode(body(x([4], [1], name="z"), x([3], [1])))
    assert left.group == right.group
    assert {name: array.tolist() for name, array in stack([left, right]).items()} == {"x": [1, 3], "z": [2, 4]}


def test_rows_of_other_shapes_part_a_group() -> None:
    codec = Codec(echo("FP32"))
    assert codec.decode(body(x([1, 2], [1, 2]))).group != codec.decode(body(x([1, 2, 3], [1, 3]))).group


def test_version_that_does_not_batch_has_no_groups() -> None:
    request = Codec(iris(max_batch_size=1)).decode(body(x(list(range(8)), [2, 4])))
    assert (request.rows, request.group) == (0, None)


def test_lone_request_is_not_copied() -> None:
    request = Codec(iris()).decode(body(x()))
    assert stack([request])["x"] is request.inputs["x"]


@pytest.mark.parametrize("datatype", DTYPES)
def test_inputs_are_read_only_however_they_came(datatype: str) -> None:
    codec = Codec(echo(datatype))
    zero = {"BOOL": False, "BYTES": ""}.get(datatype, 0)
    size = 4 if datatype == "BYTES" else DTYPES[datatype].itemsize
    head = body(x(None, [1, 1], datatype, parameters={"binary_data_size": size}))
    plain = codec.decode(body(x([zero], [1, 1], datatype)))
    binaries = [codec.decode(head + b" " * n + bytes(size), len(head) + n) for n in range(4)]
    stacked = stack([plain, *binaries])["x"]
    arrays = [stacked, plain.inputs["x"], *(request.inputs["x"] for request in binaries)]
    assert not any(array.flags.writeable for array in arrays)
    assert all(array.flags.aligned for array in arrays)
    assert stacked.tolist() == [plain.inputs["x"].tolist()[0]] * 5


def test_json_and_binary_inputs_mix() -> None:
    codec = Codec(model([tensor(name, "INT16", -1) for name in "xyz"], ONE_OUTPUT))
    head = body(
        x(None, [2], "INT16", parameters={"binary_data_size": 4}),
        x([3, 4], [2], "INT16", name="y"),
        x(None, [2], "INT16", name="z", parameters={"binary_data_size": 4}),
    )
    inputs = codec.decode(head + struct.pack("<4h", 1, 2, 5, 6), len(head)).inputs
    assert {name: array.tolist() for name, array in inputs.items()} == {"x": [1, 2], "y": [3, 4], "z": [5, 6]}


def test_header_length_of_a_body_that_is_all_json() -> None:
    assert same(Codec(iris()).decode(body(x()), len(body(x()))).inputs["x"], ROW)


def test_body_may_be_a_memoryview() -> None:
    codec = Codec(iris())
    head = body(x(None, parameters={"binary_data_size": 16}))
    assert same(codec.decode(memoryview(body(x()))).inputs["x"], ROW)
    request = codec.decode(memoryview(bytearray(head + ROW.tobytes())), len(head))
    assert same(request.inputs["x"], ROW)
    assert not request.inputs["x"].flags.writeable


def test_binary_keeps_what_json_can_not_say() -> None:
    odd = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    head = body(x(None, parameters={"binary_data_size": 16}))
    assert same(Codec(iris()).decode(head + odd.tobytes(), len(head)).inputs["x"], odd)


def test_integers_become_floats_where_the_signature_says_so() -> None:
    assert Codec(iris()).decode(body(x([1, 2, 3, 2**63]))).inputs["x"].tolist() == [[1.0, 2.0, 3.0, float(2**63)]]


def test_sixteen_bit_floats_are_numbers_in_json() -> None:
    half = Codec(echo("FP16")).decode(body(x([0.1, 65504], [1, 2], "FP16"))).inputs["x"]
    brain = Codec(echo("BF16")).decode(body(x([0.1, 3e38], [1, 2], "BF16"))).inputs["x"]
    assert same(half, np.array([[0.1, 65504]], dtype=np.float16))
    assert same(brain, np.array([[0.1, 3e38]], dtype=ml_dtypes.bfloat16))


def test_text_becomes_utf8() -> None:
    request = Codec(echo("BYTES")).decode(body(x(["é", ""], [1, 2], "BYTES")))
    assert request.inputs["x"].tolist() == [["é".encode(), b""]]


def test_raw_request_is_one_row_answered_as_binary() -> None:
    request = Codec(iris()).decode(ROW.tobytes(), 0)
    assert same(request.inputs["x"], ROW)
    assert request.outputs == (RequestedOutput("label", True), RequestedOutput("probabilities", True))
    assert (request.rows, request.group) == (1, Codec(iris()).decode(body(x())).group)


def test_raw_request_deduces_one_dimension() -> None:
    assert Codec(echo("INT16")).decode(bytes(6), 0).inputs["x"].shape == (1, 3)
    assert Codec(iris(max_batch_size=1)).decode(bytes(48), 0).inputs["x"].shape == (3, 4)


def test_raw_request_of_bytes_is_one_element_without_its_length() -> None:
    request = Codec(echo("BYTES")).decode(b"\xff\xd8 a picture", 0)
    assert request.inputs["x"].tolist() == [[b"\xff\xd8 a picture"]]


def test_keys_that_the_protocol_does_not_name_are_ignored() -> None:
    request = Codec(iris()).decode(json.dumps({"model_name": "iris", "inputs": [x(note=1)]}).encode())
    assert same(request.inputs["x"], ROW)


def test_requests_that_differ_in_their_data_alone() -> None:
    codec = Codec(iris())
    bodies = [body(x([n, n, n, n])) for n in range(3)]
    requests = [codec.decode(b) for b in bodies]
    assert [request.inputs["x"].tolist() for request in requests] == [[[n] * 4] for n in range(3)]
    assert len({request.group for request in requests}) == 1


@pytest.mark.parametrize("shape", [[True, 4], [1.0, 4]], ids=str)
def test_shape_that_only_python_takes_for_an_earlier_one(shape: list[object]) -> None:
    codec = Codec(iris())
    codec.decode(body(x()))
    with pytest.raises(InvalidTensor, match="every dimension of shape must be a whole number"):
        codec.decode(body(x(shape=shape)))
