"""`differences` for tensors of many elements, over numpy arrays: the same meaning, and the same results."""

import numpy as np
from numpy.typing import NDArray

from judging import differences
from judging.differences import Classes, Elements, Numbers, confusion
from nstarx.tensors import Tensor

_TINY = 5e-324
"""The smallest float above 0: stands for a magnitude of 0, which only a difference of 0 is divided by."""

_FLOATING = "fV"
"""Kinds of numpy dtypes; V is bfloat16."""

Floats = NDArray[np.float64]


@np.errstate(all="ignore")
def numbers(a: Tensor, b: Tensor, max_absolute: float, max_relative: float) -> Numbers:
    """Differences of two tensors of numbers or booleans."""
    gap, peak = _gaps(a.ravel(), b.ravel())
    finite = np.isfinite(gap)
    not_finite = gap.size - int(np.count_nonzero(finite))
    if not_finite:
        gap, peak = gap[finite], peak[finite]
    relative = gap / np.maximum(peak, _TINY)
    beyond = int(np.count_nonzero((gap > max_absolute) & (gap > max_relative * peak)))
    return Numbers(
        beyond + not_finite,
        not_finite,
        _top(gap),
        _mean(gap),
        _top(relative),
        _mean(relative),
        1.0 if not_finite else _top(gap / np.maximum(peak + max_absolute, _TINY)) / 2,
    )


def classes(a: Tensor, b: Tensor, width: int) -> Classes:
    """Disagreement of two tensors of classes."""
    if width == 1:
        return confusion(a.ravel().tolist(), b.ravel().tolist())
    return confusion(_best(a, width), _best(b, width))


def texts(a: Tensor, b: Tensor) -> int:
    """How many elements of two BYTES tensors differ."""
    return differences.texts(a.ravel().tolist(), b.ravel().tolist())


def _gaps(a: Tensor, b: Tensor) -> tuple[Floats, Floats]:
    """(|a - b|, max(|a|, |b|)), both 0 where a and b are equal."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    gap = np.abs(left - right) if a.dtype.kind in _FLOATING else _whole_gaps(a, b)
    peak = np.maximum(np.abs(left), np.abs(right))
    same = (a == b) | (np.isnan(left) & np.isnan(right))
    gap[same] = peak[same] = 0.0
    return gap, peak


def _whole_gaps(a: Tensor, b: Tensor) -> Floats:
    """Exact, where float64 would take large integers for equal: unsigned arithmetic wraps to the right difference."""
    return (np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)).astype(np.float64)


def _top(values: Floats) -> float:
    return float(np.max(values, initial=0.0))


def _mean(values: Floats) -> float:
    # Divided first: the sum of the largest floats would not be one.
    return float(np.sum(values / values.size)) if values.size else 0.0


def _best(scores: Tensor, width: int) -> Elements:
    rows = scores.reshape(-1, width)
    best: Elements = rows.argmax(axis=-1).tolist()
    for row in np.flatnonzero(np.isnan(rows).any(axis=-1)):
        best[row] = np.nan
    return best
