"""Answers, pairs and shadows that several tests make."""

from typing import Any

import numpy as np
import orjson

from judging.answers import Answer
from judging.shadow_examples import Pair
from nstarx.spec.shadow import ShadowSpec, ToleranceSpec
from nstarx.tensors import datatype_of

MS = 1_000_000
CLASSES = ToleranceSpec(classes=True)
REQUEST = Answer(0, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[5.5,1.5]}]}')


def shadow(**changes: Any) -> ShadowSpec:
    return ShadowSpec(**{"version": "iris@1.1.0"} | changes)


def answer(version: str = "1.0.0", **outputs: Any) -> Answer:
    """A JSON answer; an output is an array, or a list of integers, of floats (FP32) or of text."""
    return Answer(200, orjson.dumps({"model_name": "iris", "model_version": version, "outputs": tensors(**outputs)}))


def tensors(**outputs: Any) -> list[dict[str, Any]]:
    arrays = {name: _array(value) for name, value in outputs.items()}
    return [
        {"name": name, "datatype": datatype_of(array), "shape": array.shape, "data": array.ravel().tolist()}
        for name, array in arrays.items()
    ]


def _array(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(np.float32) if isinstance(value, list) and array.dtype.kind == "f" else array


def iris(label: int = 0, scores: tuple[float, ...] = (0.75, 0.25, 0.0), version: str = "1.0.0") -> Answer:
    return answer(version, label=[label], probabilities=[list(scores)])


def failed(status: int = 500, sentence: str = "it broke") -> Answer:
    return Answer(status, orjson.dumps({"error": sentence}))


def pair(id: str = "r", primary: Answer | None = None, other: Answer | None = None, **changes: Any) -> Pair:
    """A request that took 1 ms on one side and 2 ms on the other."""
    whole = Pair(id, 0.0, REQUEST, primary or iris(), other or iris(version="1.1.0"), 1 * MS, 2 * MS)
    return whole._replace(**changes)
