"""What answers look like, and which outputs a model must not return."""

import json
from typing import Any

import numpy as np
import pytest

from nstarx.errors import InvalidRequest, ModelFailed
from nstarx.tensors import DTYPES, Tensor, Tensors
from serving.codec import Answer, Codec, InferRequest
from tests.serving.codec.samples import body, echo, iris, iris_outputs, model, tensor, x

ROW = [5.1, 3.5, 1.4, 0.2]


def request_of(codec: Codec, rows: int = 1, **more: Any) -> InferRequest:
    return codec.decode(body(x(ROW * rows, [rows, 4]), **more))


def answer_of(codec: Codec, outputs: Tensors, **more: Any) -> Answer:
    (answer,) = codec.encode([codec.decode(body(x([1], [1, 1], "INT8"), **more))], outputs)
    return answer


def test_answer_in_full() -> None:
    codec = Codec(iris())
    (answer,) = codec.encode([request_of(codec, 2, id='a"b')], iris_outputs(2))
    assert answer.json_length is None
    assert json.loads(answer.body) == {
        "model_name": "iris",
        "model_version": "1.2.0",
        "id": 'a"b',
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": [0, 0.25, 0.5, 0.75, 1, 1.25]},
        ],
    }


def test_each_request_gets_its_own_rows() -> None:
    codec = Codec(iris())
    sizes = [1, 3, 1, 2]
    answers = codec.encode([request_of(codec, rows, id=str(rows)) for rows in sizes], iris_outputs(7))
    documents = [json.loads(answer.body) for answer in answers]
    assert [document["id"] for document in documents] == ["1", "3", "1", "2"]
    assert [document["outputs"][0]["data"] for document in documents] == [[0], [1, 2, 3], [4], [5, 6]]
    assert [len(document["outputs"][1]["data"]) for document in documents] == [3, 9, 3, 6]


def test_common_batch_is_written_like_a_batch_with_options() -> None:
    codec = Codec(iris())
    plain = [request_of(codec) for _ in range(5)]
    mixed = [*plain[:4], request_of(codec, id="7")]
    common, general = codec.encode(plain, iris_outputs(5)), codec.encode(mixed, iris_outputs(5))
    assert common[:4] == general[:4]
    assert general[4].body == common[4].body.replace(b'"1.2.0"', b'"1.2.0","id":"7"')


def test_percent_in_the_name_of_an_output() -> None:
    codec = Codec(model([tensor("x", "FP32", -1, 4)], [tensor("100%b", "INT64", -1)]))
    (answer,) = codec.encode([request_of(codec)], {"100%b": np.array([7])})
    (output,) = json.loads(answer.body)["outputs"]
    assert (output["name"], output["data"]) == ("100%b", [7])


def test_requested_outputs_come_in_the_order_asked_for() -> None:
    codec = Codec(iris())
    requests = [
        request_of(codec, outputs=[{"name": "probabilities"}, {"name": "label"}]),
        request_of(codec, outputs=[{"name": "label"}]),
    ]
    names = [
        [output["name"] for output in json.loads(answer.body)["outputs"]]
        for answer in codec.encode(requests, iris_outputs(2))
    ]
    assert names == [["probabilities", "label"], ["label"]]


def test_binary_and_json_outputs_mix() -> None:
    codec = Codec(iris())
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    (answer,) = codec.encode([request_of(codec, 2, outputs=outputs)], iris_outputs(2))
    assert answer.json_length is not None
    head, tail = json.loads(answer.body[: answer.json_length]), answer.body[answer.json_length :]
    assert head["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}},
        {"name": "label", "datatype": "INT64", "shape": [2], "data": [0, 1]},
    ]
    assert tail == iris_outputs(2)["probabilities"].tobytes()


def test_one_output_can_stay_json_where_all_are_binary() -> None:
    codec = Codec(iris())
    outputs = [{"name": "label", "parameters": {"binary_data": False}}]
    request = request_of(codec, parameters={"binary_data_output": True}, outputs=outputs)
    assert codec.encode([request], iris_outputs(1))[0].json_length is None


def test_numbers_that_json_does_not_have_become_null() -> None:
    codec = Codec(model([tensor("x", "INT8", -1, 1)], [tensor("y", "FP32", -1, 3), tensor("z", "BF16", -1)]))
    odd = np.array([[np.nan, np.inf, -np.inf]], dtype=np.float32)
    z = odd[0, :1].astype(DTYPES["BF16"])
    plain = answer_of(codec, {"y": odd, "z": z})
    assert [output["data"] for output in json.loads(plain.body)["outputs"]] == [[None, None, None], [None]]
    kept = answer_of(codec, {"y": odd, "z": z}, parameters={"binary_data_output": True})
    assert kept.body[kept.json_length :] == odd.tobytes() + z.tobytes()


JSON: dict[str, Any] = {}
BINARY: dict[str, Any] = {"parameters": {"binary_data_output": True}}
WITH_ID: dict[str, Any] = {"id": "7"}


@pytest.mark.parametrize("more", [JSON, BINARY, WITH_ID], ids=["json", "binary", "id"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_only_the_answer_that_is_not_finite_is_invalid(datatype: str, odd: float, more: dict[str, Any]) -> None:
    codec = Codec(echo(datatype))
    requests = [codec.decode(body(x([1, 2], [1, 2], datatype), **more)) for _ in range(3)]
    outputs = {"y": np.array([[1, 2], [3, odd], [5, 6]], dtype=DTYPES[datatype])}
    assert [answer.valid for answer in codec.encode(requests, outputs)] == [True, False, True]
    assert [answer.valid for answer in codec.encode(requests, {"y": outputs["y"][[0, 0, 2]]})] == [True] * 3


@pytest.mark.parametrize("more", [JSON, BINARY], ids=["json", "binary"])
def test_nan_is_a_value_where_the_output_allows_it(more: dict[str, Any]) -> None:
    free = tensor("y", "FP32", -1, 1).model_copy(update={"allow_nan": True})
    codec = Codec(model([tensor("x", "INT8", -1, 1)], [free, tensor("z", "FP32", -1, 1)]))
    nan, one = np.array([[np.nan]], dtype=np.float32), np.ones((1, 1), dtype=np.float32)
    assert answer_of(codec, {"y": nan, "z": one}, **more).valid
    assert not answer_of(codec, {"y": one, "z": nan}, **more).valid


@pytest.mark.parametrize("more", [JSON, BINARY], ids=["json", "binary"])
def test_large_numbers_whose_sum_overflows_are_finite(more: dict[str, Any]) -> None:
    codec = Codec(echo("FP64"))
    (answer,) = codec.encode(
        [codec.decode(body(x([1, 2], [1, 2], "FP64"), **more))], {"y": np.full((1, 2), np.finfo(np.float64).max)}
    )
    assert answer.valid


def test_text_that_says_null_is_valid() -> None:
    codec = Codec(echo("BYTES"))
    request = codec.decode(body(x(["a"], [1, 1], "BYTES")))
    assert codec.encode([request], {"y": np.array([["null NaN"]], dtype=object)})[0].valid


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("requests", [1, 2, 4])
def test_plain_answers_are_those_of_requests_with_options(requests: int, rows: int) -> None:
    codec, outputs = Codec(iris()), iris_outputs(requests * rows)
    bodies = codec.encode_plain(requests, rows, outputs)
    wordy = codec.encode([request_of(codec, rows, id="7") for _ in range(requests)], outputs)
    assert bodies == [answer.body.replace(b',"id":"7"', b"") for answer in wordy]
    if requests == 1:
        assert codec.encode_one(rows, outputs) == bodies[0]


@pytest.mark.parametrize("requests", [1, 2])
def test_plain_answers_are_written_otherwise_where_one_is_not_finite(requests: int) -> None:
    codec, outputs = Codec(iris()), iris_outputs(requests)
    outputs["probabilities"][0, 1] = np.nan
    assert codec.encode_plain(requests, 1, outputs) is None


def test_answer_to_one_plain_request_says_when_it_is_not_finite() -> None:
    codec, outputs = Codec(iris()), iris_outputs(1)
    outputs["probabilities"][0, 1] = np.nan
    answer = codec.encode_one(1, outputs)
    assert isinstance(answer, Answer)
    assert not answer.valid


@pytest.mark.parametrize(
    "outputs", [{}, {"y": [[1]]}, {"y": np.zeros((2, 1), dtype=np.int64)}, {"y": np.zeros((1, 1))}]
)
def test_one_plain_answer_is_held_to_the_signature_too(outputs: Any) -> None:
    with pytest.raises(ModelFailed, match="output 'y'"):
        Codec(echo("INT64")).encode_one(1, outputs)


def test_output_that_is_not_contiguous() -> None:
    codec = Codec(model([tensor("x", "INT8", -1, 1)], [tensor("y", "INT64", -1, -1)]))
    turned = np.arange(6).reshape(3, 2).T
    requests = [codec.decode(body(x([1], [1, 1], "INT8"))) for _ in range(2)]
    data = [json.loads(answer.body)["outputs"][0]["data"] for answer in codec.encode(requests, {"y": turned})]
    assert data == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_without_elements(rows: int) -> None:
    codec = Codec(echo("FP32"))
    request = codec.decode(body(x([], [rows, 0])))
    (answer,) = codec.encode([request], {"y": np.zeros((rows, 0), dtype=np.float32)})
    (output,) = json.loads(answer.body)["outputs"]
    assert (output["shape"], output["data"]) == ([rows, 0], [])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3), (1, 2, 3)], ids=str)
def test_version_that_does_not_batch_answers_outputs_as_they_are(shape: tuple[int, ...]) -> None:
    codec = Codec(model([tensor("x", "INT8", -1, 1)], [tensor("y", "INT64", *([-1] * len(shape)))], max_batch_size=1))
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    (output,) = json.loads(answer_of(codec, {"y": array}).body)["outputs"]
    assert (output["shape"], output["data"]) == (list(shape), array.ravel().tolist())
    binary = answer_of(codec, {"y": array}, parameters={"binary_data_output": True})
    assert binary.body[binary.json_length :] == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["é", ""], dtype=object),
        np.array(["é".encode(), b""], dtype=object),
        np.array(["é", ""]),
        np.array(["é".encode(), b""]),
    ],
    ids=["str objects", "bytes objects", "numpy str", "numpy bytes"],
)
def test_strings_of_every_kind(array: Tensor) -> None:
    codec = Codec(model([tensor("x", "INT8", -1, 1)], [tensor("y", "BYTES", -1)], max_batch_size=1))
    plain = answer_of(codec, {"y": array})
    assert json.loads(plain.body)["outputs"][0]["data"] == ["é", ""]
    binary = answer_of(codec, {"y": array}, parameters={"binary_data_output": True})
    assert binary.body[binary.json_length :] == b"\2\0\0\0\xc3\xa9\0\0\0\0"


def test_bytes_that_are_not_text_are_for_binary_only() -> None:
    codec = Codec(echo("BYTES"))
    odd, fine = np.array([[b"\xff"]], dtype=object), np.array([[b"a"]], dtype=object)
    binary = codec.decode(body(x(["a"], [1, 1], "BYTES"), parameters={"binary_data_output": True}))
    plain = codec.decode(body(x(["a"], [1, 1], "BYTES")))
    with pytest.raises(InvalidRequest, match=r"output 'y' is not UTF-8 text.*binary_data"):
        codec.encode([plain], {"y": odd})
    answers = codec.encode([binary, plain], {"y": np.concatenate([odd, fine])})
    assert answers[0].body.endswith(b"\1\0\0\0\xff")
    assert json.loads(answers[1].body)["outputs"][0]["data"] == ["a"]


BAD_OUTPUTS: dict[str, tuple[Any, str]] = {
    "missing": (None, "iris@1.2.0 failed: output 'y' is missing"),
    "list": ([[1]], "output 'y' is not a numpy array"),
    "other dtype": (np.zeros((2, 1)), "output 'y' has dtype float64, but the signature says INT64"),
    "too few rows": (np.zeros((1, 1), dtype=np.int64), "output 'y' has the shape [1,1] after a run over 2 rows"),
    "too many rows": (np.zeros((3, 1), dtype=np.int64), "has the shape [3,1] after a run over 2 rows"),
    "scalar": (np.array(1), "has the shape [] after a run over 2 rows"),
}


@pytest.mark.parametrize(("array", "sentence"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_output_that_breaks_the_signature(array: Any, sentence: str) -> None:
    codec = Codec(echo("INT64"))
    requests = [codec.decode(body(x([1], [1, 1], "INT64"))) for _ in range(2)]
    with pytest.raises(ModelFailed) as failed:
        codec.encode(requests, {"y": array} if array is not None else {})
    assert sentence in failed.value.sentence


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("element", [7, None, "\ud800"], ids=["int", "None", "half a character"])
def test_string_output_that_holds_something_else(element: object, binary: bool) -> None:
    codec = Codec(echo("BYTES"))
    request = codec.decode(body(x(["a"], [1, 1], "BYTES"), parameters={"binary_data_output": binary}))
    with pytest.raises(ModelFailed, match="output 'y'"):
        codec.encode([request], {"y": np.array([[element]], dtype=object)})
