"""Arrays from plain Python values, for places where people write tensors: golden examples and Python models."""

from typing import Any

import numpy as np

from nstarx.tensors import DTYPES, Tensor, datatype_of

NUMBER_KINDS = "biufV"
"""numpy's kinds of numbers; `V` is what ml_dtypes calls its floats."""


def array_of(value: Any, datatype: str) -> Tensor:
    """A number, string, nested list or foreign array as an array of a V2 datatype; integers keep their value.

    Raises ValueError or OverflowError with a sentence when the value doesn't fit the datatype.
    """
    if datatype == "BYTES":
        return bytes_array(np.asarray(value, dtype=object))
    given = np.asarray(value)
    if given.size and given.dtype.kind not in NUMBER_KINDS:
        raise ValueError(f"{_shown(value)} is not {datatype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.asarray(value, dtype=DTYPES[datatype])
    if array.dtype.kind in "biu" and not np.array_equal(array, given):
        raise ValueError(f"{_shown(value)} loses its value as {datatype}")
    return array


def bytes_array(array: Tensor) -> Tensor:
    """An array of text or bytes as a BYTES array; text becomes UTF-8. Raises ValueError for other elements."""
    elements = array.ravel().tolist()
    if array.dtype == object and all(type(element) is bytes for element in elements):
        return array
    encoded = np.empty(len(elements), dtype=object)
    encoded[:] = [_encoded(element) for element in elements]
    return encoded.reshape(array.shape)


def shown_datatype(array: Tensor) -> str:
    """An array's V2 datatype, or numpy's word where V2 has none."""
    try:
        return datatype_of(array)
    except KeyError:
        return str(array.dtype)


def _encoded(element: Any) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, bytes):
        return element
    raise ValueError(f"{_shown(element)} is neither text nor bytes")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
