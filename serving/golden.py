"""Golden examples: inputs whose answers are known. They warm a replica up and are checked before it says ready."""

from typing import Any

import numpy as np

from nstarx.errors import ModelLoadFailed, NStarXError
from nstarx.spec.model import GoldenExample, ModelSpec, TensorSpec
from nstarx.tensors import Tensor, Tensors
from serving.arrays import array_of, shown_datatype
from serving.codec.elements import FLOATS
from serving.partial_results import joined
from serving.runtimes.runtime import Runtime


class Difference(Exception):
    """An answer is not the golden one."""


async def check_golden(spec: ModelSpec, runtime: Runtime) -> None:
    """Run every golden example. Raises ModelLoadFailed that names the first output, and where in it, that differs.

    Await it on the event loop that will run the model, because an async model may bind itself to its first loop.
    """
    for number, example in enumerate(spec.golden, 1):
        try:
            answer = await _run(runtime, _read_only(_arrays(spec.inputs, example.inputs)))
            _compare(spec, example, answer)
        except Exception as error:  # a model may raise anything
            raise ModelLoadFailed(str(spec.ref), f"golden example {number}: {_explained(error)}") from error


def _read_only(inputs: Tensors) -> Tensors:
    """As requests bring them: a model that writes into its inputs is to fail here, not when it serves."""
    for array in inputs.values():
        array.flags.writeable = False
    return inputs


async def _run(runtime: Runtime, inputs: Tensors) -> Tensors:
    if runtime.mode == "async":
        return await runtime.infer_async(inputs)
    if runtime.mode == "stream":
        return joined([part async for part in runtime.infer_stream(inputs)])
    return runtime.infer(inputs)


def _compare(spec: ModelSpec, example: GoldenExample, answer: Tensors) -> None:
    for name, expected in _arrays(spec.outputs, example.outputs).items():
        if name not in answer:
            raise Difference(f"output '{name}' is missing")
        _compare_output(name, expected, answer[name], example.tolerance)


def _compare_output(name: str, expected: Tensor, got: Tensor, tolerance: float) -> None:
    if shown_datatype(got) != shown_datatype(expected):
        raise Difference(f"output '{name}': expected {shown_datatype(expected)}, got {shown_datatype(got)}")
    if got.shape != expected.shape:
        raise Difference(f"output '{name}': expected the shape {list(expected.shape)}, got {list(got.shape)}")
    differing = np.argwhere(~_equal(expected, got, tolerance))
    if len(differing):
        index = tuple(differing[0].tolist())
        raise Difference(f"output '{name}' at {list(index)}: expected {expected[index]!s}, got {got[index]!s}")


def _equal(expected: Tensor, got: Tensor, tolerance: float) -> Any:
    if shown_datatype(expected) not in FLOATS:
        return np.asarray(expected == got)
    # Widened, because the small float types overflow while their difference is taken.
    real, wanted = got.astype(np.float64), expected.astype(np.float64)
    return np.isclose(real, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def _arrays(tensors: tuple[TensorSpec, ...], values: dict[str, Any]) -> Tensors:
    return {t.name: _array(t, values[t.name]) for t in tensors if t.name in values}


def _array(tensor: TensorSpec, value: Any) -> Tensor:
    try:
        return array_of(value, tensor.datatype)
    except (ValueError, OverflowError) as error:
        raise Difference(f"'{tensor.name}' in model.yaml: {error}") from None


def _explained(error: Exception) -> str:
    return str(error) if isinstance(error, Difference | NStarXError) else f"{type(error).__name__}: {error}"
