"""One input of a signature: from its part of the request to its array."""

import struct
from itertools import chain
from typing import Any

import orjson

from nstarx.errors import InvalidTensor
from nstarx.spec.model import TensorSpec
from nstarx.tensors import Tensor
from serving.codec.binary import BinaryTail, read_binary
from serving.codec.elements import JSON_TYPES, bytes_array
from serving.codec.layout import Layout, Layouts, shape_text
from serving.codec.options import read_parameters

_LIST = frozenset((list,))


class Input:
    """Decodes one input of a model version. Every method raises InvalidTensor where the client is wrong."""

    def __init__(self, spec: TensorSpec, batchable: bool) -> None:
        self.name = spec.name
        self.datatype = spec.datatype
        self._types = JSON_TYPES[spec.datatype]
        self._layouts = Layouts(spec, batchable)

    def layout(self, tensor: dict[str, Any]) -> Layout:
        """The layout of a request's tensor, its datatype checked."""
        datatype = tensor.get("datatype")
        if datatype != self.datatype:
            raise InvalidTensor(self.name, f"datatype is {_shown(datatype)}, expected {self.datatype}")
        return self._layouts.of(tensor.get("shape"))

    def array(self, tensor: dict[str, Any], layout: Layout, tail: BinaryTail | None) -> Tensor:
        """The array of a request's tensor, from its JSON data or from the binary tail."""
        parameters = tensor.get("parameters")
        if parameters is not None:
            size = self._binary_size(read_parameters(parameters, f"input '{self.name}'"))
            if size is not None:
                return self._binary(tensor, layout, tail, size)
        return self.elements(tensor.get("data"), layout)

    def elements(self, data: Any, layout: Layout) -> Tensor:
        """The array of JSON data, flat or nested."""
        if type(data) is not list:
            raise InvalidTensor(self.name, "data must be a list; binary data needs the parameter binary_data_size")
        if data and type(data[0]) is list:
            data = self.flat(data, layout.shape)
        if len(data) != layout.size:
            raise InvalidTensor(
                self.name, f"data has {len(data)} elements, but shape {shape_text(layout.shape)} has {layout.size}"
            )
        if not self._types.issuperset(map(type, data)):
            raise self._wrong_type(data)
        try:
            return layout.array(data)
        except (OverflowError, struct.error):
            raise InvalidTensor(
                self.name, f"values from {min(data)} to {max(data)} do not fit into {self.datatype}"
            ) from None

    def raw(self, body: memoryview) -> tuple[Layout, Tensor]:
        """The tensor that a whole body is; a BYTES element comes without its length here."""
        layout = self._layouts.of_size(len(body))
        if self.datatype == "BYTES":
            return layout, bytes_array([bytes(body)], layout.shape)
        return layout, read_binary(self.name, self.datatype, layout, body)

    def flat(self, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
        """Nested data as one list, level by level, so that no depth exhausts the stack."""
        level = [data]
        for size in shape:
            if not (_LIST.issuperset(map(type, level)) and {size}.issuperset(map(len, level))):
                raise InvalidTensor(
                    self.name, f"nested data must have the shape {shape_text(shape)}, and no other nesting"
                )
            level = list(chain.from_iterable(level))
        return level

    def _wrong_type(self, data: list[Any]) -> InvalidTensor:
        index, value = next((i, v) for i, v in enumerate(data) if type(v) not in self._types)
        return InvalidTensor(self.name, f"element {index} is {_shown(value)}, expected {self.datatype}")

    def _binary_size(self, parameters: dict[str, Any]) -> int | None:
        if "shared_memory_region" in parameters:
            raise InvalidTensor(self.name, "shared memory is not offered; send the data in the request")
        size = parameters.get("binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise InvalidTensor(self.name, "binary_data_size must be a whole number of bytes")
        return size

    def _binary(self, tensor: dict[str, Any], layout: Layout, tail: BinaryTail | None, size: int) -> Tensor:
        if tail is None:
            raise InvalidTensor(self.name, "binary_data_size needs the header Inference-Header-Content-Length")
        if tensor.get("data") is not None:
            raise InvalidTensor(self.name, "data and binary_data_size exclude each other")
        return read_binary(self.name, self.datatype, layout, tail.take(self.name, size))


def _shown(value: Any) -> str:
    """A value of parsed JSON in an error's sentence, however large it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return orjson.dumps(value[:40] if isinstance(value, str) else value).decode()
