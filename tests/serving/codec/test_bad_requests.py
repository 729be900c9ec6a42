"""Every way to get a request wrong, and a part of the sentence that says so."""

import struct
from typing import Any

import pytest

from nstarx.errors import InvalidRequest, InvalidTensor
from nstarx.spec.model import ModelSpec
from serving.codec import Codec
from tests.serving.codec.samples import body, echo, iris, model, tensor, x

ONE_OUTPUT = [tensor("y", "FP32", -1, 1)]

BAD_BODIES = {
    "empty": (b"", "not valid JSON: Input is a zero-length, empty document"),
    "cut off": (body(x())[:-4], "line 1 column"),
    "not UTF-8": (b'{"inputs":"\xff"}', "not valid UTF-8"),
    "deeply nested": (b"[" * 100_000, "depth limit exceeded"),
    "deeply nested data": (b'{"inputs":[{"data":' + b"[" * 2_000 + b"]" * 2_000 + b"}]}", "depth limit exceeded"),
    "NaN literal": (body(x([1.0, 2.0, 3.0, float("nan")])), "not valid JSON"),
    "Infinity literal": (body(x([1.0, 2.0, 3.0, float("inf")])), "not valid JSON"),
    "number beyond FP64": (body(x()).replace(b"5.1", b"1e400"), "number is infinity"),
    "a list": (b"[]", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "no inputs": (b"{}", "inputs must be a list of tensors; this model takes x"),
    "empty inputs": (body(), "inputs must be a list of tensors"),
    "inputs as an object": (b'{"inputs":{}}', "inputs must be a list of tensors"),
    "input as a string": (body("x"), "every input must be a JSON object"),
    "input without name": (body(x(name=None)), "every input must have a name"),
    "name as a list": (body(x(name=["x"])), "every input must have a name, as a string"),
    "unknown input": (body(x(name="z")), "there is no input 'z'; this model takes x"),
    "input twice": (body(x(), x()), "input 'x' is given twice"),
    "no datatype": (body(x(datatype=None)), "input 'x': datatype is null, expected FP32"),
    "other datatype": (body(x(datatype="FP64")), "input 'x': datatype is \"FP64\", expected FP32"),
    "unknown datatype": (body(x(datatype="FP33")), 'datatype is "FP33", expected FP32'),
    "datatype as a list": (body(x(datatype=["FP32"])), "datatype is a list, expected FP32"),
    "no shape": (body(x(shape=None)), "input 'x': shape must be a list of dimensions"),
    "shape as a number": (body(x(shape=4)), "shape must be a list of dimensions"),
    "wrong rank": (body(x(shape=[4])), "input 'x': shape [4] does not fit the signature's [-1,4]"),
    "very long shape": (body(x(shape=[1] * 9000)), "shape [1,1,1,1,1,1,1,1,…] does not fit"),
    "wrong fixed dimension": (body(x([1, 2, 3], [1, 3])), "shape [1,3] does not fit the signature's [-1,4]"),
    "negative dimension": (body(x(shape=[-1, 4])), "every dimension of shape must be a whole number"),
    "dimension with a fraction": (body(x(shape=[1.0, 4])), "every dimension of shape must be a whole number"),
    "boolean dimension": (body(x(shape=[True, 4])), "every dimension of shape must be a whole number"),
    "null dimension": (body(x(shape=[None, 4])), "every dimension of shape must be a whole number"),
    "dimension as text": (body(x(shape=["1", 4])), "every dimension of shape must be a whole number"),
    "dimension as a list": (body(x(shape=[[1], 4])), "every dimension of shape must be a whole number"),
    "huge dimension": (body(x(shape=[2**62, 4])), "more elements than a body can hold"),
    "dimension beyond 64 bits": (body(x(shape=[2**70, 4])), "every dimension of shape must be a whole number"),
    "large claim, small body": (body(x(shape=[2**37, 4])), f"data has 4 elements, but shape [{2**37},4] has {2**39}"),
    "no rows": (body(x([], [0, 4])), "shape [0,4] has no rows; send at least one"),
    "no data": (body(x(data=None)), "input 'x': data must be a list"),
    "data as a number": (body(x(5.1)), "data must be a list"),
    "data as an object": (body(x({"0": 5.1})), "data must be a list"),
    "too few elements": (body(x([1, 2, 3])), "data has 3 elements, but shape [1,4] has 4"),
    "too many elements": (body(x([1, 2, 3, 4, 5])), "data has 5 elements, but shape [1,4] has 4"),
    "nested deeper than the shape": (body(x([[[1], [2], [3], [4]]])), "element 0 is a list, expected FP32"),
    "nested too wide": (body(x([[1, 2], [3, 4]])), "nested data must have the shape [1,4]"),
    "ragged": (body(x([[1, 2, 3, 4], [5]], [2, 4])), "nested data must have the shape [2,4]"),
    "nested and flat mixed": (body(x([[1, 2, 3, 4], 5], [2, 4])), "nested data must have the shape [2,4]"),
    "flat and nested mixed": (body(x([1, 2, 3, [4]])), "element 3 is a list, expected FP32"),
    "null among the data": (body(x([1, 2, None, 4])), "input 'x': element 2 is null, expected FP32"),
    "text among the data": (body(x([1, "2", 3, 4])), 'element 1 is "2", expected FP32'),
    "boolean among the numbers": (body(x([1, 2, 3, True])), "element 3 is true, expected FP32"),
    "object among the data": (body(x([{}, 2, 3, 4])), "element 0 is an object, expected FP32"),
    "long text among the data": (body(x(["a" * 999, 2, 3, 4])), f'element 0 is "{"a" * 40}", expected'),
    "number beyond FP32": (body(x([1, 2, 3, -1e300])), "values from -1e+300 to 3 do not fit into FP32"),
    "id as a number": (body(x(), id=7), "id must be a string"),
    "parameters as a list": (body(x(), parameters=[]), "the request: parameters must be a JSON object"),
    "nested parameter": (body(x(), parameters={"a": {}}), "the request: parameter 'a' must be a string, a number or"),
    "null parameter": (body(x(), parameters={"a": None}), "parameter 'a' must be a string, a number or a boolean"),
    "nested parameter of an input": (body(x(parameters={"a": []})), "input 'x': parameter 'a' must be a string"),
    "negative timeout": (body(x(), parameters={"timeout": -1}), "'timeout' must be a whole number of microseconds"),
    "boolean timeout": (body(x(), parameters={"timeout": True}), "'timeout' must be a whole number of microseconds"),
    "binary_data_output as text": (body(x(), parameters={"binary_data_output": "yes"}), "must be true or false"),
    "outputs as an object": (body(x(), outputs={}), "outputs must be a list"),
    "output as text": (body(x(), outputs=["label"]), "every requested output must be an object with a name"),
    "unknown output": (body(x(), outputs=[{"name": "z"}]), "no output 'z'; this model returns label, probabilities"),
    "output twice": (body(x(), outputs=[{"name": "label"}, {"name": "label"}]), "the same output twice"),
    "binary_data as a number": (
        body(x(), outputs=[{"name": "label", "parameters": {"binary_data": 1}}]),
        "parameter 'binary_data' must be true or false",
    ),
    "classification": (
        body(x(), outputs=[{"name": "label", "parameters": {"classification": 3}}]),
        "output 'label': classification is not offered",
    ),
    "output in shared memory": (
        body(x(), outputs=[{"name": "label", "parameters": {"shared_memory_region": "r"}}]),
        "output 'label': shared memory is not offered",
    ),
    "input in shared memory": (body(x(parameters={"shared_memory_region": "r"})), "shared memory is not offered"),
    "binary data without its header": (
        body(x(data=None, parameters={"binary_data_size": 16})),
        "input 'x': binary_data_size needs the header Inference-Header-Content-Length",
    ),
}


@pytest.mark.parametrize(("request_body", "sentence"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_json_request(request_body: bytes, sentence: str) -> None:
    assert sentence in refusal(iris(), request_body)


BAD_ELEMENTS = {
    "fraction as an integer": ("INT32", [1.5], "element 0 is 1.5, expected INT32"),
    "whole float as an integer": ("INT64", [1.0], "element 0 is 1.0, expected INT64"),
    "boolean as an integer": ("INT8", [False], "element 0 is false, expected INT8"),
    "integer beyond UINT8": ("UINT8", [300], "values from 300 to 300 do not fit into UINT8"),
    "negative unsigned": ("UINT64", [-1], "values from -1 to -1 do not fit into UINT64"),
    "integer beyond INT64": ("INT64", [2**63], "do not fit into INT64"),
    "integer beyond UINT64": ("UINT64", [2**64], "expected UINT64"),
    "number beyond FP16": ("FP16", [65520], "values from 65520 to 65520 do not fit into FP16"),
    "number beyond BF16": ("BF16", [3.4e38], "do not fit into BF16"),
    "number as a boolean": ("BOOL", [1], "element 0 is 1, expected BOOL"),
    "text as a boolean": ("BOOL", ["true"], 'element 0 is "true", expected BOOL'),
    "number as text": ("BYTES", [1], "element 0 is 1, expected BYTES"),
    "null as text": ("BYTES", [None], "element 0 is null, expected BYTES"),
}


@pytest.mark.parametrize(("datatype", "data", "sentence"), BAD_ELEMENTS.values(), ids=BAD_ELEMENTS)
def test_element_that_its_datatype_does_not_take(datatype: str, data: list[Any], sentence: str) -> None:
    assert sentence in refusal(echo(datatype), body(x(data, [1, 1], datatype)))


def binary(size: Any, shape: list[int], datatype: str = "FP32", **more: Any) -> bytes:
    return body(x(None, shape, datatype, parameters={"binary_data_size": size}, **more))


BAD_BINARY = {
    "truncated": ("FP32", binary(16, [1, 4]), bytes(15), "binary_data_size is 16, but the body has 15 bytes left"),
    "surplus": ("FP32", binary(16, [1, 4]), bytes(17), "the body has 1 bytes more than its inputs announce"),
    "size and shape differ": ("FP32", binary(12, [1, 4]), bytes(12), "12 bytes of binary data, but FP32 of shape"),
    "large claim": ("FP32", binary(16, [2**20, 4]), bytes(16), f"FP32 of shape [{2**20},4] has {2**24}"),
    "size as a float": ("FP32", binary(16.0, [1, 4]), bytes(16), "must be a whole number of bytes"),
    "size as a boolean": ("FP32", binary(True, [1, 4]), bytes(16), "must be a whole number of bytes"),
    "negative size": ("FP32", binary(-16, [1, 4]), bytes(16), "must be a whole number of bytes"),
    "data twice": (
        "FP32",
        binary(16, [1, 4]).replace(b'"shape"', b'"data":[],"shape"'),
        bytes(16),
        "exclude each other",
    ),
    "BOOL of 2": ("BOOL", binary(2, [1, 2], "BOOL"), b"\1\2", "a byte of a binary BOOL must be 0 or 1"),
    "length cut off": ("BYTES", binary(3, [1, 1], "BYTES"), bytes(3), "ends inside the length of element 0"),
    "length that lies": (
        "BYTES",
        binary(8, [1, 2], "BYTES"),
        struct.pack("<II", 0, 2**32 - 1),
        "element 1 is longer than the binary data",
    ),
    "missing element": (
        "BYTES",
        binary(5, [1, 2], "BYTES"),
        b"\1\0\0\0a",
        "1 elements in the binary data, but the shape has 2",
    ),
    "more elements": (
        "BYTES",
        binary(8, [1, 1], "BYTES"),
        bytes(8),
        "2 elements in the binary data, but the shape has 1",
    ),
}


@pytest.mark.parametrize(("datatype", "head", "tail", "sentence"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_bad_binary_tensor(datatype: str, head: bytes, tail: bytes, sentence: str) -> None:
    assert sentence in refusal(echo(datatype), head + tail, len(head))


@pytest.mark.parametrize("json_length", [-1, 10_000])
def test_header_length_that_the_body_does_not_have(json_length: int) -> None:
    assert f"Inference-Header-Content-Length is {json_length}, but" in refusal(iris(), body(x()), json_length)


def test_missing_input_is_named() -> None:
    spec = model([tensor("x", "FP32", -1, 4), tensor("mask", "BOOL", -1, 4)], ONE_OUTPUT)
    assert "input 'mask' is missing; this model needs mask, x" in refusal(spec, body(x()))


def test_inputs_of_different_batch_sizes() -> None:
    spec = model([tensor("x", "FP32", -1, 1), tensor("z", "FP32", -1, 1)], ONE_OUTPUT)
    sentence = refusal(spec, body(x([1], [1, 1]), x([1, 2], [2, 1], name="z")))
    assert "the same number of rows; here they have: x 1, z 2" in sentence


BAD_RAW = {
    "empty": (iris(), b"", "the body is empty"),
    "not a whole row": (iris(), bytes(15), "15 bytes of binary data, but FP32 of shape [1,4] has 16"),
    "more than one row": (iris(), bytes(32), "32 bytes of binary data, but FP32 of shape [1,4] has 16"),
    "not whole elements": (echo("FP32"), bytes(7), "7 bytes of binary data, but FP32 of shape [1,1] has 4"),
    "two free dimensions": (echo("FP32", 1), bytes(8), "a raw request can't tell its shape, [-1,-1]"),
    "two inputs": (
        model([tensor("x", "FP32", 1), tensor("z", "FP32", 1)], ONE_OUTPUT),
        bytes(8),
        "a raw request is for models of one input",
    ),
    "several strings": (
        model([tensor("x", "BYTES", -1, 2)], ONE_OUTPUT),
        b"abc",
        "a raw request holds one BYTES element",
    ),
}


@pytest.mark.parametrize(("spec", "raw", "sentence"), BAD_RAW.values(), ids=BAD_RAW)
def test_bad_raw_request(spec: ModelSpec, raw: bytes, sentence: str) -> None:
    assert sentence in refusal(spec, raw, 0)


def test_error_of_one_tensor_has_its_own_code() -> None:
    with pytest.raises(InvalidTensor) as refused:
        Codec(iris()).decode(body(x([1, 2, 3])))
    assert (refused.value.status, refused.value.code) == (400, "invalid_tensor")


def refusal(spec: ModelSpec, request_body: bytes, json_length: int | None = None) -> str:
    with pytest.raises(InvalidRequest) as refused:
        Codec(spec).decode(request_body, json_length)
    assert refused.value.status == 400
    assert len(refused.value.sentence) < 400
    return refused.value.sentence
