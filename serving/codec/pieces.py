"""Long data read piece by piece, for bodies that are decoded in a thread.

A parser of JSON holds Python's lock from the first byte to the last: 64 MiB in one go would stop the event loop for
half a second, whichever thread asks. A piece takes half a millisecond, and its numbers are gone when the next comes, so
that the whole takes a fraction of the memory too.
"""

import struct
from collections.abc import Iterator

import orjson

from nstarx.tensors import DTYPES, Tensor
from serving.codec.elements import NUMBERS, buffer_array
from serving.codec.layout import Layout
from serving.codec.plain import ERRORS

PIECE = 1 << 16
"""Bytes of JSON parsed at a time."""
LONG = 1 << 17
"""Data of so many bytes are worth it."""


def read_pieces(data: bytes, datatype: str, layout: Layout) -> Tensor | None:
    """The array of `data`, a JSON list that lacks its closing bracket; None where it isn't flat, complete and right.

    Numbers with commas between can be cut at any comma; data that hold anything else do not pass.
    """
    blank, bracket, _ = data[:PIECE].partition(b"[")
    # The claimed size is the client's word: no list has more elements than bytes.
    if not bracket or blank.strip() or datatype not in NUMBERS or layout.size > len(data):
        return None
    try:
        packed = _packed(_pieces(data, len(blank) + 1), datatype, layout.size)
    except ERRORS:
        return None
    return None if packed is None else buffer_array(packed, datatype, layout.shape)


def _packed(pieces: Iterator[bytes], datatype: str, size: int) -> bytearray | None:
    step, format = DTYPES[datatype].itemsize, NUMBERS[datatype]
    packed = bytearray(size * step)
    filled = 0
    for piece in pieces:
        numbers = orjson.loads(b"[%b]" % piece)
        if not numbers or b"t" in piece or b"f" in piece:  # To Python, true and false are numbers.
            return None
        # Raises where there are more than the shape says.
        struct.pack_into(f"<{len(numbers)}{format}", packed, filled * step, *numbers)
        filled += len(numbers)
    return packed if filled == size else None


def _pieces(data: bytes, start: int) -> Iterator[bytes]:
    """What is between the commas, from `start` on; the last piece of a list that ends with a comma is empty."""
    while (comma := data.find(b",", start + PIECE)) >= 0:
        yield data[start:comma]
        start = comma + 1
    yield data[start:]
