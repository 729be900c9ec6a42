"""The stock client and the codec understand each other's bytes."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)

from nstarx.tensors import DTYPES, Tensor
from serving.codec import Answer, Codec, InferRequest, stack
from tests.serving.codec.samples import echo, iris, iris_outputs, same

SAMPLES: dict[str, Tensor] = {
    "BOOL": np.array([[True, False, True]]),
    "BYTES": np.array([[b"a", b"", "é".encode()]], dtype=object),
    "FP16": np.array([[0.1, -2, 65504]], dtype=np.float16),
    "FP32": np.array([[0.1, -2, 3e38]], dtype=np.float32),
    "FP64": np.array([[0.1, -2, 1e300]]),
    "BF16": np.array([[0.1, -2, 1e38]], dtype=ml_dtypes.bfloat16),
}
for integer in (name for name, dtype in DTYPES.items() if dtype.kind in "iu"):
    limits = np.iinfo(DTYPES[integer])
    SAMPLES[integer] = np.array([[limits.min, 1, limits.max]], dtype=limits.dtype)

# The client itself refuses to send BF16 as JSON.
FORMS_IN = [(datatype, binary) for datatype in DTYPES for binary in (True, False) if binary or datatype != "BF16"]


def sent(codec: Codec, datatype: str, array: Tensor, binary: bool, **more: Any) -> InferRequest:
    given = InferInput("x", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return codec.decode(*InferenceServerClient.generate_request_body([given], **more))


def received(answer: Answer) -> Any:
    return InferenceServerClient.parse_response_body(answer.body, header_length=answer.json_length)


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize(("datatype", "binary_in"), FORMS_IN)
def test_every_datatype_in_every_form(datatype: str, binary_in: bool, binary_out: bool) -> None:
    codec, array = Codec(echo(datatype)), SAMPLES[datatype]
    wanted = [InferRequestedOutput("y", binary_data=binary_out)]
    request = sent(codec, datatype, array, binary_in, outputs=wanted, request_id='7"')
    assert same(request.inputs["x"], array)
    (answer,) = codec.encode([request], {"y": request.inputs["x"]})
    assert (answer.json_length is not None) is binary_out
    result = received(answer)
    assert result.get_response()["id"] == '7"'
    assert same(texts_as_bytes(result.as_numpy("y")), array)


def texts_as_bytes(array: Tensor) -> Tensor:
    """The client gives strings of JSON as `str`, and those of binary data as `bytes`."""
    if array.dtype != object:
        return array
    return np.array([e.encode() if isinstance(e, str) else e for e in array.flat], dtype=object).reshape(array.shape)


def test_client_that_asks_for_nothing_gets_every_output_as_binary() -> None:
    codec = Codec(iris())
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    request = sent(codec, "FP32", rows, True)
    result = received(codec.encode([request], iris_outputs(2))[0])
    assert all(same(result.as_numpy(name), array) for name, array in iris_outputs(2).items())
    assert all("data" not in output for output in result.get_response()["outputs"])


def test_requests_of_a_batch_are_read_one_by_one() -> None:
    codec = Codec(iris())
    arrays = [np.full((rows, 4), rows, dtype=np.float32) for rows in (1, 2, 1)]
    requests = [sent(codec, "FP32", array, binary) for array, binary in zip(arrays, (True, False, True), strict=True)]
    assert same(stack(requests)["x"], np.concatenate(arrays))
    labels = [received(answer).as_numpy("label").tolist() for answer in codec.encode(requests, iris_outputs(4))]
    assert labels == [[0], [1, 2], [3]]


def test_options_of_the_client() -> None:
    more = {"timeout": 2_000_000, "priority": 1, "sequence_id": 5, "parameters": {"who": "me"}}
    request = sent(Codec(iris()), "FP32", np.zeros((1, 4), dtype=np.float32), True, **more)
    assert request.timeout_s == 2.0
    assert (request.parameters["who"], request.parameters["sequence_id"]) == ("me", 5)
