"""Answers of our own replicas, read back into tensors.

Sources: Open Inference Protocol V2 (REST), Triton's binary tensor data extension. Lenient where that does no harm: the
data may be nested or flat, compressed or not, and keys that aren't needed are passed over.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from nstarx.tensors import DTYPES, Tensor, Tensors

INFLATED_LIMIT = 1 << 26
"""Bytes that a compressed body may grow to."""

_COMPRESSED = (b"\x1f", b"\x78")
"""How gzip and zlib begin."""
_LISTS = frozenset((list,))
_ELEMENTS: dict[str, frozenset[type]] = {
    "b": frozenset((bool,)),
    "i": frozenset((int,)),
    "u": frozenset((int,)),
    "f": frozenset((float, int, type(None))),
    "V": frozenset((float, int, type(None))),
    "O": frozenset((str,)),
}
"""Kind of a numpy dtype (V is bfloat16) to the JSON types of its elements; null stands for NaN."""
_LENGTH = struct.Struct("<I")


class Answer(NamedTuple):
    """What came back for one request, or what was sent."""

    status: int
    body: bytes
    json_length: int | None = None
    """Bytes of JSON before binary tensors; None when all is JSON."""


class Output(NamedTuple):
    """One tensor as it came. Two equal ones hold equal tensors; the others have to be read."""

    datatype: Any
    shape: Any
    data: Any
    """Elements from JSON as a list, or binary data as bytes."""

    def array(self) -> Tensor:
        """The tensor; BYTES as an object array of bytes. Raises ValueError."""
        dtype, size = self.form()
        try:
            flat = _from_binary(self.data, dtype) if type(self.data) is bytes else _from_json(self.data, dtype)
            self.check_size(len(flat), size)
            return flat.reshape(self.shape)
        except OverflowError:
            # numpy's own sentence would quote the element.
            raise ValueError(f"an element does not fit {self.datatype}") from None

    def check_size(self, found: int, size: int) -> None:
        """Raises ValueError where the elements are not as many as the shape wants."""
        if found != size:
            raise ValueError(f"{found} elements do not fill the shape {self.shape}")

    def form(self) -> tuple[np.dtype[Any], int]:
        """(dtype, number of elements). Raises ValueError."""
        dtype, shape = DTYPES.get(self.datatype) if type(self.datatype) is str else None, self.shape
        if dtype is None:
            raise ValueError("the datatype is not one of V2")
        size = 1
        for dimension in shape if type(shape) is list else (None,):
            if type(dimension) is not int or dimension < 0:
                raise ValueError("a shape is a list of whole numbers of at least 0")
            size *= dimension
        return dtype, size


def decode(body: bytes, json_length: int | None = None) -> Tensors:
    """The outputs of an answer by name. Raises ValueError where it isn't one, or holds no whole tensors."""
    return {name: output.array() for name, output in outputs(body, json_length).items()}


def outputs(body: bytes, json_length: int | None = None, key: str = "outputs") -> dict[str, Output]:
    """The outputs of an answer, not yet read; with `key="inputs"`, the inputs of a request. Raises ValueError."""
    end = len(body) if json_length is None else json_length
    if not 0 <= end <= len(body):
        raise ValueError(f"{end} bytes of JSON are announced in a body of {len(body)}")
    document = orjson.loads(body if end == len(body) else body[:end])
    tensors = document.get(key) if type(document) is dict else None
    if type(tensors) is not list:
        raise ValueError(f"the body has no list of {key}")
    found = {}
    for tensor in tensors:
        name = tensor.get("name") if type(tensor) is dict else None
        if type(name) is not str or name in found:
            raise ValueError(f"each of the {key} is an object with a name of its own")
        data = tensor.get("data")
        if data is None:
            start, end = end, end + _binary_size(name, tensor)
            data = body[start:end]
        found[name] = Output(tensor.get("datatype"), tensor.get("shape"), data)
    if end != len(body):
        raise ValueError(f"the body has {len(body)} bytes, but its JSON and tensors have {end}")
    return found


def few(one: Output, other: Output, limit: int) -> tuple[list[Any], list[Any]] | None:
    """The elements of two outputs of one datatype and shape, null as NaN, as lists where that is cheap: at most `limit`
    of JSON each. Else None. Raises ValueError."""
    if type(one.data) is not list or type(other.data) is not list:
        return None
    dtype, size = one.form()
    return (_few(one, dtype, size), _few(other, dtype, size)) if size <= limit else None


def inflated(answer: Answer, limit: int = INFLATED_LIMIT) -> Answer:
    """The answer without its compression, told by how it begins: JSON begins with a brace. Raises ValueError."""
    body = answer.body
    if not body.startswith(_COMPRESSED):
        return answer
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = stream.decompress(body, limit)
    except zlib.error as error:
        raise ValueError(f"a compressed body is damaged: {error}") from None
    if not stream.eof:
        raise ValueError(f"a compressed body is truncated, or larger than {limit} bytes")
    return answer._replace(body=plain)


def _few(output: Output, dtype: np.dtype[Any], size: int) -> list[Any]:
    flat = _checked(output.data, dtype)
    output.check_size(len(flat), size)
    return [math.nan if element is None else element for element in flat] if None in flat else flat


def _binary_size(name: str, tensor: dict[str, Any]) -> int:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if type(parameters) is dict else None
    if type(size) is not int or size < 0:
        raise ValueError(f"'{name}' has neither data nor binary_data_size")
    return size


def _from_json(data: Any, dtype: np.dtype[Any]) -> Tensor:
    flat = _checked(data, dtype)
    if dtype.kind == "O":
        return _objects([element.encode() for element in flat])
    with np.errstate(over="ignore"):
        # bfloat16 takes no None, but anything from float32.
        return np.array(flat, np.float32).astype(dtype) if dtype.kind == "V" else np.array(flat, dtype)


def _checked(data: Any, dtype: np.dtype[Any]) -> list[Any]:
    flat = _flat(data)
    if not _ELEMENTS[dtype.kind].issuperset(map(type, flat)):
        raise ValueError(f"the data holds elements that are not {dtype}")
    return flat


def _flat(data: Any) -> list[Any]:
    if type(data) is not list:
        raise ValueError("the data is not a list")
    while data and type(data[0]) is list:
        if not _LISTS.issuperset(map(type, data)):
            raise ValueError("the data is nested unevenly")
        data = list(chain.from_iterable(data))
    return data  # type: ignore[no-any-return]


def _from_binary(data: bytes, dtype: np.dtype[Any]) -> Tensor:
    return _objects(_elements(data)) if dtype.kind == "O" else np.frombuffer(data, dtype)


def _elements(data: bytes) -> list[bytes]:
    elements, at = [], 0
    while at < len(data):
        start = at + _LENGTH.size
        if start > len(data):
            raise ValueError("binary BYTES end inside a length")
        at = start + _LENGTH.unpack_from(data, start - _LENGTH.size)[0]
        if at > len(data):
            raise ValueError("binary BYTES end inside an element")
        elements.append(data[start:at])
    return elements


def _objects(elements: Sequence[bytes]) -> Tensor:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array
