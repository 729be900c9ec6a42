"""Tensors as raw bytes: little-endian, row-major, no padding (Triton's binary tensor data extension)."""

import struct

import numpy as np

from nstarx.errors import InvalidRequest, InvalidTensor
from nstarx.tensors import DTYPES, Tensor
from serving.codec.elements import bytes_array
from serving.codec.layout import Layout, shape_text

_LENGTH = struct.Struct("<I")


class BinaryTail:
    """The bytes after the JSON of a request, taken from the front, tensor after tensor."""

    def __init__(self, tail: memoryview) -> None:
        self._tail = tail

    def take(self, name: str, size: int) -> memoryview:
        """The next `size` bytes. Raises InvalidTensor where the body is too short."""
        if size > len(self._tail):
            raise InvalidTensor(name, f"binary_data_size is {size}, but the body has {len(self._tail)} bytes left")
        taken, self._tail = self._tail[:size], self._tail[size:]
        return taken

    def finish(self) -> None:
        """Raises InvalidRequest where bytes are left over."""
        if self._tail:
            raise InvalidRequest(
                f"the body has {len(self._tail)} bytes more than its inputs announce in binary_data_size"
            )


def read_binary(name: str, datatype: str, layout: Layout, data: memoryview) -> Tensor:
    """The tensor in `data`, as a read-only view of it where alignment allows. Raises InvalidTensor."""
    if datatype == "BYTES":
        return bytes_array(_read_elements(name, layout.size, data), layout.shape)
    dtype = DTYPES[datatype]
    expected = layout.size * dtype.itemsize
    if len(data) != expected:
        shape = shape_text(layout.shape)
        raise InvalidTensor(name, f"{len(data)} bytes of binary data, but {datatype} of shape {shape} has {expected}")
    if datatype == "BOOL" and data.tobytes().strip(b"\0\1"):
        raise InvalidTensor(name, "a byte of a binary BOOL must be 0 or 1")
    array: Tensor = np.ndarray(layout.shape, dtype, data)
    return array if array.flags.aligned else _aligned(array)


def bytes_elements(elements: list[bytes]) -> bytes:
    """Binary BYTES: each element behind its length, 4 bytes."""
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def _aligned(array: Tensor) -> Tensor:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _read_elements(name: str, size: int, data: memoryview) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH.size
        if start > len(data):
            raise InvalidTensor(name, f"the binary data ends inside the length of element {len(elements)}")
        at = start + _LENGTH.unpack_from(data, start - _LENGTH.size)[0]
        if at > len(data):
            raise InvalidTensor(name, f"element {len(elements)} is longer than the binary data, by its own length")
        elements.append(bytes(data[start:at]))
    if len(elements) != size:
        raise InvalidTensor(name, f"{len(elements)} elements in the binary data, but the shape has {size}")
    return elements
