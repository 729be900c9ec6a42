"""One output of a signature: from the array of a run to each request's part of an answer."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from nstarx.errors import InvalidRequest, ModelFailed
from nstarx.spec.model import TensorSpec
from nstarx.tensors import DTYPES, Tensor, Tensors
from serving.codec.binary import bytes_elements
from serving.codec.layout import shape_text

CACHED_SHAPES = 256
"""Per output. Clients choose how many rows they send, so the cache must be bounded."""


class Output:
    """Encodes one output of a model version."""

    def __init__(self, spec: TensorSpec, ref: str) -> None:
        self.name = spec.name
        self.optional = spec.optional
        self.datatype = spec.datatype
        self._ref = ref
        self._dtype = self._accepted = DTYPES[spec.datatype]
        self._rows = BytesRows if spec.datatype == "BYTES" else NumberRows
        self.opening = lru_cache(CACHED_SHAPES)(self._opening)

    def checked(self, outputs: Tensors, count: int) -> Tensor:
        """This output of one run over `count` stacked rows; 0 is a run that isn't divided. Raises ModelFailed."""
        array = outputs.get(self.name)
        if not isinstance(array, np.ndarray):
            raise self.failure("is missing" if array is None else "is not a numpy array")
        if array.dtype is not self._accepted:
            self._accept(array.dtype)
        if count and array.shape[:1] != (count,):
            raise self.failure(f"has the shape {shape_text(array.shape)} after a run over {count} rows")
        return array

    def _accept(self, dtype: "np.dtype[Any]") -> None:
        """Remember a dtype that fits: comparing two objects costs more than writing a small output."""
        if dtype != self._dtype and not (self.datatype == "BYTES" and dtype.kind in "SUT"):
            raise self.failure(f"has dtype {dtype}, but the signature says {self.datatype}")
        self._accepted = dtype

    def row_texts(self, array: Tensor) -> list[bytes]:
        """Each row's elements as JSON, with commas between."""
        return _number_texts(array) if self._rows is NumberRows else self._rows(self, array, len(array)).texts()

    def rows(self, array: Tensor, count: int) -> "OutputRows":
        """A checked array, to be cut into the parts of the requests whose rows it holds."""
        return self._rows(self, array, count)

    def failure(self, problem: str) -> ModelFailed:
        return ModelFailed(self._ref, f"output '{self.name}' {problem}")

    def document(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Name, datatype and shape, as answers say them."""
        return {"name": self.name, "datatype": self.datatype, "shape": shape}

    def _opening(self, shape: tuple[int, ...]) -> bytes:
        """What comes before the elements of a tensor in JSON; `b"]}"` comes after them."""
        return orjson.dumps(self.document(shape))[:-1] + b',"data":['


class OutputRows(ABC):
    """One output of one run, to be cut into the parts of its requests."""

    def __init__(self, output: Output, array: Tensor, count: int) -> None:
        self._output = output
        self._divided = count > 0
        # An output that isn't divided is one row as a whole.
        self._array = array if count else array[np.newaxis]
        self._texts: list[bytes] = []

    def json(self, start: int, stop: int) -> bytes:
        """The tensor of rows `start` to `stop` as JSON."""
        return b"%b%b]}" % (self._output.opening(self.shape(stop - start)), self._elements(start, stop))

    def binary(self, start: int, stop: int) -> tuple[bytes, bytes]:
        """The same tensor as JSON without data, and its data as bytes."""
        data = self._bytes(self._array[start:stop])
        document = self._output.document(self.shape(stop - start))
        return orjson.dumps(document | {"parameters": {"binary_data_size": len(data)}}), data

    def shape(self, count: int) -> tuple[int, ...]:
        """The shape of `count` rows, or of the whole where it isn't divided."""
        return (count, *self._array.shape[1:]) if self._divided else self._array.shape[1:]

    @abstractmethod
    def texts(self) -> list[bytes]:
        """Each row's elements as JSON, with commas between."""

    @abstractmethod
    def _elements(self, start: int, stop: int) -> bytes:
        """Elements of rows `start` to `stop` as JSON, with commas between."""

    @abstractmethod
    def _bytes(self, array: Tensor) -> bytes:
        """Binary data."""


class NumberRows(OutputRows):
    """Numbers or booleans: all rows are written at once when the first is asked for."""

    def texts(self) -> list[bytes]:
        if not self._texts:
            self._texts = _number_texts(self._array)
        return self._texts

    def _elements(self, start: int, stop: int) -> bytes:
        # Rows of no elements leave no commas.
        return b",".join(filter(None, self.texts()[start:stop]))

    def _bytes(self, array: Tensor) -> bytes:
        return array.tobytes()


class BytesRows(OutputRows):
    """Strings: each part is written by itself, so that one which isn't UTF-8 leaves the others alone."""

    def texts(self) -> list[bytes]:
        return [self._elements(row, row + 1) for row in range(len(self._array))]

    def _elements(self, start: int, stop: int) -> bytes:
        try:
            return orjson.dumps([_text(element) for element in self._array[start:stop].flat])[1:-1]
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output '{self._output.name}' is not UTF-8 text, which JSON needs; "
                "ask for it with the parameter binary_data"
            ) from None
        except TypeError as error:
            raise self._output.failure(str(error)) from None

    def _bytes(self, array: Tensor) -> bytes:
        try:
            return bytes_elements([_bytes(element) for element in array.flat])
        except (TypeError, UnicodeEncodeError) as error:
            raise self._output.failure(str(error)) from None


def _number_texts(array: Tensor) -> list[bytes]:
    rows, size = len(array), array.size
    if size == 0:
        return [b""] * rows
    if size == rows:
        return _json(array if array.ndim == 1 else array.reshape(rows))[1:-1].split(b",")
    return _json(array if array.ndim == 2 else array.reshape(rows, -1))[2:-2].split(b"],[")


def _json(array: Tensor) -> bytes:
    try:
        return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # It knows neither arrays with gaps nor BF16.
        plain = array.astype(np.float32) if array.dtype == _BFLOAT16 else array
        return orjson.dumps(np.ascontiguousarray(plain), option=orjson.OPT_SERIALIZE_NUMPY)


def _text(element: Any) -> str:
    return element if isinstance(element, str) else _bytes(element).decode()


def _bytes(element: Any) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if not isinstance(element, bytes):
        raise TypeError(f"holds a {type(element).__name__}; elements of a BYTES tensor are str or bytes")
    return element


_BFLOAT16 = DTYPES["BF16"]
