"""Signatures and bodies that the tests of the codec share."""

import json
from typing import Any

import numpy as np

from nstarx.spec.model import Batching, ModelSpec, TensorSpec
from nstarx.tensors import Tensor, Tensors

Shape = tuple[int, ...]


def tensor(name: str, datatype: str, *shape: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, optional=optional)


def model(inputs: list[TensorSpec], outputs: list[TensorSpec], max_batch_size: int = 64) -> ModelSpec:
    return ModelSpec(
        name="iris",
        version="1.2.0",
        runtime="onnx",
        file="model.onnx",
        sha256="0" * 64,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        batching=Batching(max_batch_size=max_batch_size),
    )


def iris(max_batch_size: int = 64) -> ModelSpec:
    return model(
        [tensor("x", "FP32", -1, 4)],
        [tensor("label", "INT64", -1), tensor("probabilities", "FP32", -1, 3)],
        max_batch_size,
    )


def echo(datatype: str, max_batch_size: int = 64) -> ModelSpec:
    """A model that returns its input of any shape [rows, columns]."""
    return model([tensor("x", datatype, -1, -1)], [tensor("y", datatype, -1, -1)], max_batch_size)


def iris_outputs(rows: int) -> Tensors:
    return {
        "label": np.arange(rows, dtype=np.int64),
        "probabilities": np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 4,
    }


def x(data: Any = (5.1, 3.5, 1.4, 0.2), shape: Any = (1, 4), datatype: Any = "FP32", **more: Any) -> dict[str, Any]:
    """The input `x` of iris in JSON; a keyword of None leaves the key out."""
    whole = {"name": "x", "shape": shape, "datatype": datatype, "data": data} | more
    return {key: value for key, value in whole.items() if value is not None}


def body(*inputs: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}).encode()


def same(left: Tensor, right: Tensor) -> bool:
    """Equal to the bit, dtype and shape included."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.tolist() == right.tolist() if left.dtype == object else left.tobytes() == right.tobytes()
