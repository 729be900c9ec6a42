"""Whether what a user's model returned is what its signature promises."""

from typing import Any

import numpy as np

from nstarx.errors import ModelFailed
from nstarx.spec.model import ModelSpec, TensorSpec
from nstarx.tensors import DTYPES, Tensor, Tensors
from serving.arrays import array_of, bytes_array, shown_datatype


class Outputs:
    """The declared outputs of one version. Raises ModelFailed that names the output and what was expected."""

    def __init__(self, spec: ModelSpec) -> None:
        self._ref = str(spec.ref)
        self._tensors = spec.outputs
        self._names = {tensor.name for tensor in spec.outputs}

    def conform(self, answer: Any) -> Tensors:
        """The answer as arrays of the declared datatypes. Arrays pass as they are, plain values become arrays."""
        if not isinstance(answer, dict):
            raise self._failed(f"infer returned {_a(answer)}, expected a dict of output names to arrays")
        if not answer.keys() <= self._names:
            raise self._failed(f"infer returned {_quoted(answer.keys() - self._names)}; outputs are {self._declared()}")
        return {tensor.name: self._array(tensor, answer[tensor.name]) for tensor in self._present(answer)}

    def _present(self, answer: dict[str, Any]) -> tuple[TensorSpec, ...]:
        if len(answer) == len(self._tensors):
            return self._tensors
        for tensor in self._tensors:
            if tensor.name not in answer and not tensor.optional:
                raise self._failed(f"output '{tensor.name}' is missing from what infer returned")
        return tuple(tensor for tensor in self._tensors if tensor.name in answer)

    def _array(self, tensor: TensorSpec, value: Any) -> Tensor:
        array = value if isinstance(value, np.ndarray) else self._converted(tensor, value)
        if array.dtype != DTYPES[tensor.datatype] or tensor.datatype == "BYTES":
            array = self._retyped(tensor, array)
        if not _fits(array.shape, tensor.shape):
            raise self._failed(
                f"output '{tensor.name}' has the shape {list(array.shape)}, expected {list(tensor.shape)}"
            )
        return array

    def _converted(self, tensor: TensorSpec, value: Any) -> Tensor:
        try:
            array = array_of(value, tensor.datatype)
        except (ValueError, OverflowError, TypeError) as error:
            raise self._failed(f"output '{tensor.name}': expected {tensor.datatype}: {error}") from error
        # A single number where one of rank 1 or more is declared means one element.
        return array.reshape((1,) * len(tensor.shape)) if array.ndim == 0 else array

    def _retyped(self, tensor: TensorSpec, array: Tensor) -> Tensor:
        """Text as BYTES and foreign byte order as native; any other difference is the model's mistake."""
        if shown_datatype(array) != tensor.datatype:
            raise self._failed(f"output '{tensor.name}' is {shown_datatype(array)}, expected {tensor.datatype}")
        if tensor.datatype != "BYTES":
            return array.astype(DTYPES[tensor.datatype])
        try:
            return bytes_array(array)
        except ValueError as error:
            raise self._failed(f"output '{tensor.name}': expected BYTES: {error}") from error

    def _declared(self) -> str:
        return ", ".join(f"'{tensor.name}'" for tensor in self._tensors)

    def _failed(self, reason: str) -> ModelFailed:
        return ModelFailed(self._ref, reason)


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    if len(shape) != len(declared):
        return False
    return all(wanted in (-1, size) for size, wanted in zip(shape, declared, strict=True))


def _a(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _quoted(names: set[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(map(str, names)))
