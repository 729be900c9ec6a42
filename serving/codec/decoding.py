"""Requests: bytes of a body in, tensors that fit the signature out.

The common request (JSON alone, one tensor, no options) takes a short way through: see `frames`.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from nstarx.errors import InvalidRequest
from nstarx.spec.model import ModelSpec
from nstarx.tensors import Tensors
from serving.codec.binary import BinaryTail
from serving.codec.frames import Frame, Frames, cut, is_plain, surrounds_data, tensor_within
from serving.codec.ids import id_of, without_id
from serving.codec.input import Input
from serving.codec.layout import Layout
from serving.codec.options import read_options
from serving.codec.pieces import LONG, read_pieces
from serving.codec.plain import Plain, PlainFrame
from serving.codec.request import Body, InferRequest, RequestedOutput


class Decoder:
    """Decodes the requests of one model version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._inputs = {tensor.name: Input(tensor, spec.batchable) for tensor in spec.inputs}
        self._required = {tensor.name for tensor in spec.inputs if not tensor.optional}
        self._frames: Frames[PlainFrame] = Frames()
        self._latest: PlainFrame | None = None
        """The frame that came last, which is likely to come next; of numbers only."""
        self._outputs = tuple(tensor.name for tensor in spec.outputs)

    def decode(self, body: Body, json_length: int | None = None) -> InferRequest:
        """The request in a body whose first `json_length` bytes are JSON and whose rest is binary tensors.

        None: the whole body is JSON. 0: the whole body is the only input's tensor, or its only element where the
        datatype is BYTES; every output is answered as binary data. Raises InvalidRequest or InvalidTensor (400). The
        work done is bounded by the size of the body, whatever shapes it claims.
        """
        if json_length is None:
            return self._json(bytes(body))
        if json_length == 0:
            return self._raw(body)
        if not 0 < json_length <= len(body):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes"
            )
        view = memoryview(body).toreadonly()
        tail = BinaryTail(view[json_length:])
        request = self._request(_parse(view[:json_length]), tail)
        tail.finish()
        return request

    def plain(self, bodies: list[bytes]) -> Plain | None:
        """Plain requests of one frame and of numbers, stacked; None where they aren't that, or their frame is new.

        They come one by one where the version isn't batchable. Raises nothing: `decode` says what is wrong with a body.
        """
        if len(bodies) == 1:
            return self.one(bodies[0])
        return None if self._latest is None else self._latest.many(bodies)

    def one(self, body: bytes) -> Plain | None:
        """The same for one request."""
        return None if self._latest is None else self._latest.one(body)

    def _json(self, body: bytes) -> InferRequest:
        rest, tag = without_id(body)
        request = self._document(rest)
        if tag and request.id is None:
            request.id = id_of(tag)
        return request

    def _document(self, body: bytes) -> InferRequest:
        frame, data = cut(body)
        known = self._frames.get(frame)
        if known is None and len(data) >= LONG and surrounds_data(frame):
            known = self._learned(frame, data, tensor_within(frame) or {})
        return self._unframed(body, frame, data) if known is None else self._framed(body, data, known)

    def _framed(self, body: bytes, data: bytes, known: PlainFrame) -> InferRequest:
        tensor, layout = known.tensor, known.layout
        if known.numeric:
            self._latest = known
            if len(data) < LONG and (plain := known.one(body)) is not None:
                return InferRequest(plain[0], layout.rows, layout.group)
        array = read_pieces(data, tensor.datatype, layout) if len(data) >= LONG else None
        if array is None:
            try:
                elements = orjson.loads(data + b"]")
            except orjson.JSONDecodeError:
                return self._request(_parse(body), None)
            array = tensor.elements(elements, layout)
        return InferRequest({tensor.name: array}, layout.rows, layout.group)

    def _unframed(self, body: bytes, frame: Frame, data: bytes) -> InferRequest:
        document = _parse(body)
        request = self._request(document, None)
        if is_plain(document):
            self._learned(frame, data, document["inputs"][0])
        return request

    def _learned(self, frame: Frame, data: bytes, tensor: dict[str, Any]) -> PlainFrame:
        known = self._input(tensor)
        self._check_complete((known.name,))
        gap = data[: len(data) - len(data.lstrip())]
        plain = PlainFrame(frame, gap, known, known.layout(tensor))
        self._frames.learn(frame, plain)
        return plain

    def _request(self, document: dict[str, Any], tail: BinaryTail | None) -> InferRequest:
        tensors = document.get("inputs")
        if type(tensors) is not list or not tensors:
            raise InvalidRequest(f"inputs must be a list of tensors; this model takes {', '.join(self._inputs)}")
        inputs: Tensors = {}
        layouts: list[Layout] = []
        for tensor in tensors:
            known = self._input(tensor)
            if known.name in inputs:
                raise InvalidRequest(f"input '{known.name}' is given twice")
            layout = known.layout(tensor)
            inputs[known.name] = known.array(tensor, layout, tail)
            layouts.append(layout)
        if len(inputs) != len(self._inputs):
            self._check_complete(inputs)
        request = _assemble(inputs, layouts)
        if len(document) > 1:
            read_options(document, request, self._outputs)
        return request

    def _input(self, tensor: Any) -> Input:
        if type(tensor) is not dict:
            raise InvalidRequest("every input must be a JSON object with name, shape, datatype and data")
        name = tensor.get("name")
        if type(name) is not str:
            raise InvalidRequest("every input must have a name, as a string")
        known = self._inputs.get(name)
        if known is None:
            raise InvalidRequest(f"there is no input '{name[:80]}'; this model takes {', '.join(self._inputs)}")
        return known

    def _check_complete(self, inputs: Iterable[str]) -> None:
        missing = sorted(self._required.difference(inputs))
        if missing:
            raise InvalidRequest(
                f"input '{missing[0]}' is missing; this model needs {', '.join(sorted(self._required))}"
            )

    def _raw(self, body: Body) -> InferRequest:
        if len(self._inputs) != 1:
            raise InvalidRequest("a raw request is for models of one input; send JSON before the tensors")
        if not len(body):
            raise InvalidRequest("the body is empty; a raw request is the bytes of its tensor")
        (known,) = self._inputs.values()
        layout, array = known.raw(memoryview(body).toreadonly())
        request = _assemble({known.name: array}, [layout])
        request.outputs = tuple(RequestedOutput(name, True) for name in self._outputs)
        request.binary = True
        return request


def _parse(body: Body) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request is not valid JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidRequest("the request must be a JSON object with inputs")
    return document


def _assemble(inputs: Tensors, layouts: list[Layout]) -> InferRequest:
    first = layouts[0]
    if len(layouts) == 1:
        return InferRequest(inputs, first.rows, first.group)
    if any(layout.rows != first.rows for layout in layouts):
        rows = ", ".join(f"{name} {layout.rows}" for name, layout in zip(inputs, layouts, strict=True))
        raise InvalidRequest(f"all inputs must have the same number of rows; here they have: {rows}")
    groups = frozenset(layout.group for layout in layouts)
    return InferRequest(inputs, first.rows, groups if first.group else None)
