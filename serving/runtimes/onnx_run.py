"""The ways to run an ONNX Runtime session; which one is settled once, at load, by the datatypes of the signature.

ONNX Runtime takes and gives numpy arrays for all datatypes but two: it holds BYTES as UTF-8 text, and knows no numpy
dtype for BF16, which has to travel in an OrtValue.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from nstarx.errors import InvalidTensor
from nstarx.spec.model import ModelSpec
from nstarx.tensors import DTYPES, Tensor, Tensors

Run = Callable[[Tensors], Tensors]

ONNX_BFLOAT16 = 16
"""onnx.TensorProto.BFLOAT16"""


def runner(session: Any, spec: ModelSpec) -> Run:
    """The fastest way to run this signature. Raises ValueError for the one combination that can't be run."""
    inputs = {tensor.name: tensor.datatype for tensor in spec.inputs}
    outputs = {tensor.name: tensor.datatype for tensor in spec.outputs}
    if "BF16" in outputs.values():
        return _with_bfloat16_outputs(session, inputs, outputs)
    if {"BYTES", "BF16"} & {*inputs.values(), *outputs.values()}:
        return _converting(session, inputs, outputs)
    return _plain(session, outputs)


def _plain(session: Any, outputs: dict[str, str]) -> Run:
    names = list(outputs)
    # The session's own Python wrapper checks the names of inputs again and again, for almost the price of a small
    # model's run; the codec has checked them. Where a GPU is in use, the wrapper's fallback to the CPU is kept.
    bare = getattr(session, "_sess", None) if session.get_providers() == ["CPUExecutionProvider"] else None
    if bare is None:
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))
    run = bare.run
    return lambda inputs: dict(zip(names, run(names, inputs, None), strict=True))


def _converting(session: Any, inputs: dict[str, str], outputs: dict[str, str]) -> Run:
    plain = _plain(session, outputs)
    text = [name for name, datatype in outputs.items() if datatype == "BYTES"]

    def run(given: Tensors) -> Tensors:
        answer = plain({name: _fed(name, array, inputs.get(name)) for name, array in given.items()})
        return answer | {name: _encoded(answer[name]) for name in text}

    return run


def _with_bfloat16_outputs(session: Any, inputs: dict[str, str], outputs: dict[str, str]) -> Run:
    if "BYTES" in inputs.values():
        raise ValueError("ONNX Runtime can't take BYTES and return BF16; cast the BF16 outputs to FP32 in the model")
    names = list(outputs)

    def run(given: Tensors) -> Tensors:
        feed = {name: _value(array, inputs.get(name)) for name, array in given.items()}
        values = session.run_with_ort_values(names, feed)
        return {name: _fetched(value, outputs[name]) for name, value in zip(names, values, strict=True)}

    return run


def _fed(name: str, array: Tensor, datatype: str | None) -> Any:
    if datatype == "BYTES":
        return _decoded(name, array)
    return _value(array, datatype) if datatype == "BF16" else array


def _value(array: Tensor, datatype: str | None) -> Any:
    if datatype == "BF16":
        # ONNX Runtime reads the buffer as it lies and ignores strides.
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.asarray(array, order="C"), ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _fetched(value: Any, datatype: str) -> Tensor:
    if datatype == "BYTES":
        return _encoded(value.numpy())
    return _bfloat16(value) if datatype == "BF16" else value.numpy()


def _bfloat16(value: Any) -> Tensor:
    array = np.empty(value.shape(), dtype=DTYPES["BF16"])
    # Copied, because the buffer goes with the OrtValue.
    ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _decoded(name: str, array: Tensor) -> Tensor:
    """Text, because ONNX Runtime takes the `repr` of every element that is not a `str`."""
    elements = array.ravel().tolist()
    try:
        return _objects([element.decode() for element in elements], array.shape)
    except UnicodeDecodeError:
        raise InvalidTensor(name, f"element {_first_not_text(elements)} is not UTF-8; ONNX models take text") from None


def _encoded(array: Tensor) -> Tensor:
    return _objects([element.encode() for element in array.ravel().tolist()], array.shape)


def _objects(elements: list[Any], shape: tuple[int, ...]) -> Tensor:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def _first_not_text(elements: list[bytes]) -> int:
    return next(index for index, element in enumerate(elements) if not _is_text(element))


def _is_text(element: bytes) -> bool:
    try:
        element.decode()
    except UnicodeDecodeError:
        return False
    return True
