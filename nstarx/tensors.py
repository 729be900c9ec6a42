"""Tensors as the Open Inference Protocol names them, and their numpy counterparts.

Source: Open Inference Protocol V2 (datatypes), Triton's binary tensor data extension (BF16, layout of BYTES).
A BYTES tensor is an object array of `bytes`; BF16 is `ml_dtypes.bfloat16`.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]
Tensors = dict[str, Tensor]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(object),
}
"""Datatype name to numpy dtype (little-endian, as the wire wants it)."""

DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(array: Tensor) -> str:
    """The V2 name of an array's dtype; numpy strings count as BYTES. Raises KeyError for dtypes V2 doesn't name."""
    if array.dtype.kind in "SUOT":
        return "BYTES"
    return DATATYPES[array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype]
