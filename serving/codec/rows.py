"""One output of one run, cut into the parts of its requests, each as JSON or as binary data."""

from abc import ABC, abstractmethod
from math import isfinite

import numpy as np
import orjson

from nstarx.tensors import Tensor
from serving.codec.binary import bytes_elements
from serving.codec.output import Output, element_bytes, holds_null

HANDFUL = 32


class OutputRows(ABC):
    """A checked array over `count` rows; 0 is one that isn't divided, and is one row as a whole."""

    def __init__(self, output: Output, array: Tensor, count: int) -> None:
        self._output = output
        self._divided = count > 0
        self._array = array if count else array[np.newaxis]

    _all_finite: bool | None = None

    def json(self, start: int, stop: int) -> tuple[bytes, bool]:
        """The tensor of rows `start` to `stop` as JSON, and whether it is finite where it must be."""
        elements = self._elements(start, stop)
        tensor = b"%b%b]}" % (self._output.opening(self.shape(stop - start)), elements)
        return tensor, not (self._output.finite and holds_null(elements))

    def binary(self, start: int, stop: int) -> tuple[bytes, bytes, bool]:
        """The same tensor as JSON without data, its data as bytes, and whether it is finite where it must be."""
        array = self._array[start:stop]
        data = self._bytes(array)
        document = self._output.document(self.shape(stop - start)) | {"parameters": {"binary_data_size": len(data)}}
        return orjson.dumps(document), data, not self._output.finite or self._is_finite(array)

    def _is_finite(self, part: Tensor) -> bool:
        """Looked at once for all parts, which then are finite too."""
        if self._all_finite is None:
            self._all_finite = all_finite(self._array)
        return self._all_finite or (len(part) < len(self._array) and all_finite(part))

    def shape(self, count: int) -> tuple[int, ...]:
        """The shape of `count` rows, or of the whole where it isn't divided."""
        return (count, *self._array.shape[1:]) if self._divided else self._array.shape[1:]

    @abstractmethod
    def _elements(self, start: int, stop: int) -> bytes:
        """Elements of rows `start` to `stop` as JSON, with commas between."""

    @abstractmethod
    def _bytes(self, array: Tensor) -> bytes:
        """Binary data."""


def all_finite(array: Tensor) -> bool:
    """Whether neither NaN nor an infinity is among floats."""
    # Numpy takes five times as long for a handful of them. A sum can be infinite though none of its terms is.
    if array.size <= HANDFUL and isfinite(sum(array.ravel().tolist())):
        return True
    return bool(np.isfinite(array).all())


class NumberRows(OutputRows):
    """Numbers or booleans: all rows are written at once when the first is asked for."""

    _texts: list[bytes] | None = None

    def _elements(self, start: int, stop: int) -> bytes:
        if self._texts is None:
            self._texts = self._output.texts(self._array, len(self._array))
        # Rows of no elements leave no commas.
        return b",".join(filter(None, self._texts[start:stop]))

    def _bytes(self, array: Tensor) -> bytes:
        return array.tobytes()


class BytesRows(OutputRows):
    """Strings: each part is written by itself, so that one which isn't UTF-8 leaves the others alone."""

    def _elements(self, start: int, stop: int) -> bytes:
        return self._output.strings(self._array[start:stop])

    def _bytes(self, array: Tensor) -> bytes:
        try:
            return bytes_elements([element_bytes(element) for element in array.flat])
        except (TypeError, UnicodeEncodeError) as error:
            raise self._output.failure(str(error)) from None


def rows_of(output: Output, array: Tensor, count: int) -> OutputRows:
    """A checked array, to be cut into the parts of the requests whose rows it holds."""
    return (BytesRows if output.datatype == "BYTES" else NumberRows)(output, array, count)
