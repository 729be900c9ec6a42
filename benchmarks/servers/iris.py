"""The work that every server of the comparison does: V2 JSON in, one run of ONNX Runtime, V2 JSON out.

Written to be as fast as Python allows (orjson, NumPy arrays serialized without a detour over lists), so that no
contender is slowed down by the code that this project lends it.
"""

import os
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import orjson

PATH = "/v2/models/iris/infer"
MODEL_VARIABLE = "BENCHMARK_MODEL"
"""Environment variable with the path of the ONNX file, set by the contender's `start`."""

Request = dict[str, Any]


class Iris:
    """The model, on one thread: several threads would only take CPU from each other in a run this short."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ[MODEL_VARIABLE], options, providers=["CPUExecutionProvider"]
        )

    def run(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of shape [N, 4] to labels [N] and probabilities [N, 3]."""
        label, probabilities = self.session.run(["label", "probabilities"], {"x": x})
        return label, probabilities

    def answer(self, body: bytes) -> bytes:
        """One request's whole work, unbatched."""
        request = orjson.loads(body)
        return encode(response(request, *self.run(rows(request))))

    def answer_all(self, requests: list[Request]) -> list[Request]:
        """The work of a batch of parsed requests with one run."""
        inputs = [rows(request) for request in requests]
        labels, probabilities = self.run(np.concatenate(inputs))
        ends = np.cumsum([len(x) for x in inputs])[:-1]
        parts = zip(requests, np.split(labels, ends), np.split(probabilities, ends), strict=True)
        return [response(request, label, scores) for request, label, scores in parts]


def rows(request: Request) -> np.ndarray:
    tensor = request["inputs"][0]
    return np.asarray(tensor["data"], np.float32).reshape(tensor["shape"])


def response(request: Request, label: np.ndarray, probabilities: np.ndarray) -> Request:
    return {
        "model_name": "iris",
        "model_version": "1.0.0",
        "id": request.get("id", ""),
        "outputs": [
            {"name": "label", "shape": label.shape, "datatype": "INT64", "data": label},
            {"name": "probabilities", "shape": probabilities.shape, "datatype": "FP32", "data": probabilities.ravel()},
        ],
    }


def encode(body: Request) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
