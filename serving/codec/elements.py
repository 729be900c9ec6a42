"""Elements of JSON data: which JSON types each datatype takes, and how a flat list of them becomes an array.

JSON has no NaN and no infinity, so a number that doesn't fit its datatype is an error and never an infinity.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from nstarx.tensors import DTYPES, Tensor

_FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}

NUMBERS = {datatype: letter for datatype, letter in _FORMATS.items() if datatype != "BOOL"}
"""Datatypes whose elements are packed as numbers, and `struct`'s letter for each."""

FLOATS = frozenset(("FP16", "FP32", "FP64", "BF16"))
"""Datatypes that have NaN and infinities."""

JSON_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(_FORMATS, frozenset((int,))),
    **dict.fromkeys(FLOATS, frozenset((int, float))),
    "BOOL": frozenset((bool,)),
    "BYTES": frozenset((str,)),
}
"""Datatype to the exact types of its elements in parsed JSON; true is not a number."""

ArrayMaker = Callable[[list[Any]], Tensor]
Pack = Callable[..., bytes]
"""Numbers as the bytes of their array."""


def array_maker(datatype: str, shape: tuple[int, ...], size: int) -> ArrayMaker:
    """What makes read-only arrays of one shape from flat lists of `size` elements of the right types.

    It raises OverflowError or struct.error where an element is out of the datatype's range.
    """
    if datatype == "BYTES":
        return lambda texts: bytes_array([text.encode() for text in texts], shape)
    if datatype == "BF16":
        return lambda numbers: _bfloat16_array(numbers, shape)
    dtype = DTYPES[datatype]
    # Twice as fast as numpy's own conversion of lists, and strict about ranges.
    pack = struct.Struct(f"<{size}{_FORMATS[datatype]}").pack
    return lambda elements: np.ndarray(shape, dtype, pack(*elements))


def buffer_array(packed: bytearray, datatype: str, shape: tuple[int, ...]) -> Tensor:
    """A read-only tensor over its elements' bytes."""
    array: Tensor = np.ndarray(shape, DTYPES[datatype], packed)
    array.flags.writeable = False
    return array


def bytes_array(elements: list[bytes], shape: tuple[int, ...]) -> Tensor:
    """A read-only BYTES tensor."""
    array = np.array(elements, dtype=object).reshape(shape)
    array.flags.writeable = False
    return array


def _bfloat16_array(numbers: list[float], shape: tuple[int, ...]) -> Tensor:
    with np.errstate(over="ignore"):
        array = np.array(numbers, dtype=np.float64).astype(DTYPES["BF16"]).reshape(shape)
    if not np.isfinite(array).all():
        raise OverflowError("a number is too large for BF16")
    array.flags.writeable = False
    return array
