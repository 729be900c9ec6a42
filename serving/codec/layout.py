"""Shapes that fit an input's signature, and what decoding needs to know about each."""

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from nstarx.errors import InvalidTensor
from nstarx.spec.model import TensorSpec
from nstarx.tensors import DTYPES
from serving.codec.elements import ArrayMaker, array_maker

MAX_ELEMENTS = 2**40
"""More than any body holds, and few enough that sizes in bytes don't overflow."""
CACHED_SHAPES = 256
"""Per input. Clients choose the shapes, so the cache must be bounded."""


class Layout(NamedTuple):
    """One shape of one input."""

    shape: tuple[int, ...]
    size: int
    """Number of elements."""
    rows: int
    """Size of the first dimension where the version is batchable, else 0."""
    group: Hashable
    """Equal for tensors that may be stacked; None where none may."""
    array: ArrayMaker


class Layouts:
    """All shapes that one input may have."""

    def __init__(self, spec: TensorSpec, batchable: bool) -> None:
        self._spec = spec
        self._batchable = batchable
        # typed: 1, 1.0 and true are equal in Python, but only the first is a dimension.
        self._layout = lru_cache(CACHED_SHAPES, typed=True)(self._fit)

    def of(self, shape: Any) -> Layout:
        """The layout for a claimed shape. Raises InvalidTensor where it doesn't fit the signature."""
        if type(shape) is not list:
            raise InvalidTensor(self._spec.name, "shape must be a list of dimensions, like [1,4]")
        try:
            return self._layout(*shape)
        except TypeError:  # a list or an object as a dimension can't be hashed
            raise self._not_whole() from None

    def of_size(self, size: int) -> Layout:
        """The layout of a lone tensor of `size` bytes, of batch size 1, in which at most one dimension is deduced."""
        shape = list(self._spec.shape)
        if self._batchable:
            shape[0] = 1
        if self._spec.datatype == "BYTES":
            return self._one_element(shape)
        if shape.count(-1) > 1:
            raise InvalidTensor(
                self._spec.name, f"a raw request can't tell its shape, {shape_text(shape)}; send JSON before the tensor"
            )
        if -1 in shape:
            step = -math.prod(shape) * DTYPES[self._spec.datatype].itemsize
            shape[shape.index(-1)] = size // step if step else 0
        return self.of(shape)

    def _one_element(self, shape: list[int]) -> Layout:
        layout = self.of([1 if dimension == -1 else dimension for dimension in shape])
        if layout.size != 1:
            raise InvalidTensor(self._spec.name, "a raw request holds one BYTES element, but the signature wants more")
        return layout

    def _fit(self, *shape: Any) -> Layout:
        spec = self._spec
        if not all(type(dimension) is int and dimension >= 0 for dimension in shape):
            raise self._not_whole()
        if len(shape) != len(spec.shape) or any(
            want not in (-1, got) for want, got in zip(spec.shape, shape, strict=True)
        ):
            raise InvalidTensor(
                spec.name, f"shape {shape_text(shape)} does not fit the signature's {shape_text(spec.shape)}"
            )
        if math.prod(max(dimension, 1) for dimension in shape) > MAX_ELEMENTS:
            raise InvalidTensor(spec.name, f"shape {shape_text(shape)} has more elements than a body can hold")
        if self._batchable and shape[0] == 0:
            raise InvalidTensor(spec.name, f"shape {shape_text(shape)} has no rows; send at least one")
        size = math.prod(shape)
        return Layout(
            shape,
            size,
            rows=shape[0] if self._batchable else 0,
            group=(spec.name, shape[1:]) if self._batchable else None,
            array=array_maker(spec.datatype, shape, size),
        )

    def _not_whole(self) -> InvalidTensor:
        return InvalidTensor(self._spec.name, "every dimension of shape must be a whole number of at least 0")


def shape_text(shape: Sequence[Any]) -> str:
    """A shape in an error's sentence, however long it is."""
    return f"[{','.join(map(str, shape[:8]))}{',…' if len(shape) > 8 else ''}]"
