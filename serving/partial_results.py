"""Partial results of a stream as one result."""

from collections.abc import Sequence

import numpy as np

from nstarx.tensors import Tensors


def joined(parts: Sequence[Tensors]) -> Tensors:
    """Parts one after the other along the first dimension; a part that is a single number counts as one row.

    An output need not be in every part.
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts if name in part]) for name in names}
