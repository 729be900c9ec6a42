"""Requests of one group as one batch."""

from collections.abc import Sequence

import numpy as np

from nstarx.tensors import Tensor, Tensors
from serving.codec.request import InferRequest


def stack(requests: Sequence[InferRequest]) -> Tensors:
    """The inputs of requests of one group, row after row. A single request's own arrays are not copied."""
    inputs = requests[0].inputs
    if len(requests) == 1:
        return inputs
    return {name: _stacked([request.inputs[name] for request in requests]) for name in inputs}


def _stacked(arrays: list[Tensor]) -> Tensor:
    stacked = np.concatenate(arrays)
    # A model that writes to its inputs would work in a batch and fail on a lone request; it fails on both.
    stacked.flags.writeable = False
    return stacked
