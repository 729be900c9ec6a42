"""Plain requests read together: as long as they come in one frame, the data of all of them become one array in one go.

Nothing that one client writes can reach into another's request: what passes is numbers with commas between, flat or in
rows, and in each request as many as its shape says. Whatever else is among them is decoded request by request.
"""

import struct
from collections.abc import Iterable
from itertools import chain
from typing import Any

from numpy import ndarray
from orjson import JSONDecodeError, loads

from nstarx.errors import InvalidTensor
from nstarx.tensors import DTYPES, Tensors
from serving.codec.elements import NUMBERS, Pack
from serving.codec.frames import AFTER, BEFORE, Frame
from serving.codec.input import Input
from serving.codec.layout import Layout

Plain = tuple[Tensors, int]
"""The inputs of plain requests, stacked, and the rows of each request; 0 where the version isn't batchable."""

ERRORS = (JSONDecodeError, struct.error, OverflowError, InvalidTensor)
"""What data that aren't as many numbers in range raise when they are parsed and packed."""


class PlainFrame:
    """A frame of plain requests, and what it says about their data."""

    __slots__ = (
        "_commas", "_dtype", "_packs", "_prefix", "_row", "_start", "_stop", "_suffix", "layout", "numeric", "tensor"
    )  # fmt: skip

    def __init__(self, frame: Frame, gap: bytes, tensor: Input, layout: Layout) -> None:
        """`gap` is the white space before the data, in which clients differ too."""
        head, tail = frame
        self.tensor = tensor
        self.layout = layout
        self.numeric = tensor.datatype in NUMBERS and layout.size > 0
        """Whether `one` and `many` may be asked."""
        # The brackets around the data belong to the frame.
        self._prefix = b"%b%b%b[" % (head, BEFORE, gap)
        self._suffix = AFTER + tail
        self._start, self._stop = len(self._prefix), -len(self._suffix)
        self._commas = {layout.size - 1}
        self._dtype = DTYPES[tensor.datatype]
        self._row = layout.shape[1:]
        self._packs: dict[int, Pack] = {}

    def one(self, body: bytes) -> Plain | None:
        """The request in a body; None where it isn't plain, in this frame, and of numbers, flat or nested."""
        if not (body.startswith(self._prefix) and body.endswith(self._suffix)):
            return None
        text = body[self._start - 1 : self._stop + 1]
        if b"t" in text or b"f" in text:  # To Python, true and false are numbers.
            return None
        layout = self.layout
        try:
            numbers = loads(text)
            if numbers and type(numbers[0]) is list:
                numbers = self.tensor.flat(numbers, layout.shape)
            packed = (self._packs.get(1) or self._pack(1))(*numbers)
        except ERRORS:
            return None
        return {self.tensor.name: ndarray(layout.shape, self._dtype, packed)}, layout.rows

    def many(self, bodies: list[bytes]) -> Plain | None:
        """The requests in several bodies, stacked in their order; None where one of them isn't plain, in this frame,
        and of numbers, which all are flat or all are rows."""
        prefix, suffix, start, stop = self._prefix, self._suffix, self._start, self._stop
        if not (bodies[0].endswith(suffix) and bodies[-1].endswith(suffix) and bodies[-1].startswith(prefix)):
            return None
        texts = [body[start:stop] for body in bodies if body.startswith(prefix) and body.endswith(suffix)]
        count, text = len(texts), b"[%b]" % b",".join(texts)
        if count < len(bodies) or b"t" in text or b"f" in text:
            return None
        parsed = self._rows if text.startswith(b"[[") else self._numbers
        try:
            packed = (self._packs.get(count) or self._pack(count))(*parsed(texts, text))
        except ERRORS:
            return None
        rows = self.layout.rows
        return {self.tensor.name: ndarray((count * rows, *self._row), self._dtype, packed)}, rows

    def _numbers(self, texts: list[bytes], text: bytes) -> Iterable[Any]:
        """Flat data. Every text has as many commas as its shape says, so it has as many numbers."""
        if {text.count(b",") for text in texts} != self._commas:
            return ()
        numbers: list[Any] = loads(text)
        return numbers

    def _rows(self, texts: list[bytes], text: bytes) -> Iterable[Any]:
        """Rows. Their brackets alternate, and every text has as many of both as its shape has rows, so that
        no row can begin in one text and end in another."""
        rows = self.layout.rows
        if {(text.count(b"["), text.count(b"]")) for text in texts} != {(rows, rows)}:
            return ()
        lists: list[Any] = loads(text)
        right = {*map(type, lists)} == {list} and {*map(len, lists)} == {*self._row}
        return chain.from_iterable(lists) if right and len(self._row) == 1 else ()

    def _pack(self, requests: int) -> Pack:
        numbers = requests * self.layout.size
        pack = self._packs[requests] = struct.Struct(f"<{numbers}{NUMBERS[self.tensor.datatype]}").pack
        return pack
