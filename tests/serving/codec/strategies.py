"""Tensors of every datatype, as hypothesis draws them."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nstarx.tensors import DTYPES, Tensor

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests whose machine may be busy with others."""

datatypes = st.sampled_from(sorted(DTYPES))


def elements(datatype: str, json: bool) -> st.SearchStrategy[Any]:
    """Elements of a datatype; `json` leaves out those that JSON can't say."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text().map(str.encode) if json else st.binary()
    if DTYPES[datatype].kind in "iu":
        limits = np.iinfo(DTYPES[datatype])
        return st.integers(int(limits.min), int(limits.max))
    if datatype == "BF16":
        # A part of the range of FP32, so that nothing is rounded to infinity.
        return st.floats(-(2.0**126), 2.0**126, width=32) if json else st.floats(width=32, allow_subnormal=False)
    width = {"FP16": 16, "FP32": 32, "FP64": 64}[datatype]
    return st.floats(width=width, allow_nan=not json, allow_infinity=not json)  # type: ignore[arg-type]


@st.composite
def tensors(draw: st.DrawFn, datatype: str, json: bool, columns: int | None = None) -> Tensor:
    """A tensor of 1 to 3 rows."""
    rows = draw(st.integers(1, 3))
    width = draw(st.integers(0, 4)) if columns is None else columns
    flat = draw(st.lists(elements(datatype, json), min_size=rows * width, max_size=rows * width))
    with np.errstate(over="ignore"):
        return np.array(flat, dtype=DTYPES[datatype]).reshape(rows, width)
