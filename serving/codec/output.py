"""One output of a signature: whether what a run gave is right, and its elements as JSON."""

from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from nstarx.errors import InvalidRequest, ModelFailed
from nstarx.spec.model import TensorSpec
from nstarx.tensors import DTYPES, Tensor, Tensors
from serving.codec.elements import FLOATS
from serving.codec.layout import shape_text

CACHED_SHAPES = 256
"""Per output. Clients choose how many rows they send, so the cache must be bounded."""

_BFLOAT16 = DTYPES["BF16"]


class Output:
    """Encodes one output of a model version."""

    def __init__(self, spec: TensorSpec, ref: str) -> None:
        self.name = spec.name
        self.optional = spec.optional
        self.datatype = spec.datatype
        self.finite = spec.datatype in FLOATS and not spec.allow_nan
        """Whether NaN and infinities make an answer invalid."""
        self._ref = ref
        self._dtype = self.accepted = DTYPES[spec.datatype]
        """`accepted` is the dtype seen last."""
        self._is_text = spec.datatype == "BYTES"
        self.opening = lru_cache(CACHED_SHAPES)(self._opening)

    def checked(self, outputs: Tensors, count: int) -> Tensor:
        """This output of one run over `count` stacked rows; 0 is a run that isn't divided. Raises ModelFailed."""
        array = outputs.get(self.name)
        if not isinstance(array, np.ndarray):
            raise self.failure("is missing" if array is None else "is not a numpy array")
        if array.dtype is not self.accepted:
            self.accept(array.dtype)
        if count and array.shape[:1] != (count,):
            raise self.failure(f"has the shape {shape_text(array.shape)} after a run over {count} rows")
        return array

    def accept(self, dtype: "np.dtype[Any]") -> None:
        """Remember a dtype that fits: comparing two objects costs more than writing a small output. Raises ModelFailed.

        C has several names for an integer of 64 bits, and numpy a dtype for each.
        """
        if dtype != self._dtype and not (self._is_text and dtype.kind in "SUT"):
            raise self.failure(f"has dtype {dtype}, but the signature says {self.datatype}")
        self.accepted = dtype

    def texts(self, array: Tensor, parts: int) -> list[bytes]:
        """The elements of so many equal parts of a checked array as JSON, with commas between.

        Raises InvalidRequest where a string isn't UTF-8, and ModelFailed where it isn't a string.
        """
        if self._is_text:
            return [self.strings(part) for part in array.reshape(parts, -1)]
        if parts == 1:
            return [_json(array.ravel())[1:-1]]
        if array.size == parts:
            return _json(array.reshape(parts))[1:-1].split(b",")
        if array.size:
            return _json(array.reshape(parts, -1))[2:-2].split(b"],[")
        return [b""] * parts

    def strings(self, array: Tensor) -> bytes:
        """Strings as JSON, with commas between. Raises as `texts` does."""
        try:
            return orjson.dumps([_text(element) for element in array.flat])[1:-1]
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"output '{self.name}' is not UTF-8 text, which JSON needs; ask for it with the parameter binary_data"
            ) from None
        except TypeError as error:
            raise self.failure(str(error)) from None

    def failure(self, problem: str) -> ModelFailed:
        return ModelFailed(self._ref, f"output '{self.name}' {problem}")

    def document(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Name, datatype and shape, as answers say them."""
        return {"name": self.name, "datatype": self.datatype, "shape": shape}

    def _opening(self, shape: tuple[int, ...]) -> bytes:
        """What comes before the elements of a tensor in JSON; `b"]}"` comes after them."""
        return orjson.dumps(self.document(shape))[:-1] + b',"data":['


def holds_null(numbers: bytes) -> bool:
    """Whether NaN or an infinity is among numbers that were written as JSON: nothing else in them has an n."""
    return b"n" in numbers


def element_bytes(element: Any) -> bytes:
    """An element of a BYTES output. Raises TypeError for what is no string, UnicodeEncodeError for half a character."""
    if isinstance(element, str):
        return element.encode()
    if not isinstance(element, bytes):
        raise TypeError(f"holds a {type(element).__name__}; elements of a BYTES tensor are str or bytes")
    return element


def _text(element: Any) -> str:
    return element if isinstance(element, str) else element_bytes(element).decode()


def _json(array: Tensor) -> bytes:
    try:
        return orjson.dumps(array, None, orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # It knows neither arrays with gaps nor BF16.
        plain = array.astype(np.float32) if array.dtype == _BFLOAT16 else array
        return orjson.dumps(np.ascontiguousarray(plain), None, orjson.OPT_SERIALIZE_NUMPY)
