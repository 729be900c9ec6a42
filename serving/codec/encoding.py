"""Answers: the outputs of one run in, one HTTP body per request out.

Each output is written as JSON once per run and then cut into rows. NaN and infinities become null, for JSON has no such
numbers; binary data keeps them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import orjson

from nstarx.errors import InvalidRequest
from nstarx.spec.model import ModelSpec
from nstarx.tensors import Tensor, Tensors
from serving.codec.output import Output, OutputRows
from serving.codec.request import InferRequest

CACHED_TEMPLATES = 64
"""Models whose rows have any shape could ask for any number of them."""

Results = dict[str, OutputRows]


class Answer(NamedTuple):
    """A body, and how much of it is JSON where binary tensors follow (Inference-Header-Content-Length)."""

    body: bytes
    json_length: int | None


class Encoder:
    """Encodes the answers of one model version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._ref = str(spec.ref)
        self._outputs = [Output(tensor, self._ref) for tensor in spec.outputs]
        self._optional = any(output.optional for output in self._outputs)
        self._head = orjson.dumps({"model_name": spec.name, "model_version": spec.version})[:-1]
        self._template = lru_cache(CACHED_TEMPLATES)(self._row_template)

    def encode(self, requests: Sequence[InferRequest], outputs: Tensors) -> list[Answer]:
        """The answers to `requests`, whose stacked inputs gave `outputs`.

        Raises ModelFailed where an output is missing or isn't what the signature says, and InvalidRequest where a
        BYTES output that isn't UTF-8 was asked for as JSON. Either may be one request's fault alone: after an error for
        several requests, run and encode each by itself.
        """
        count = sum([request.rows for request in requests])
        produced = self._produced(outputs) if self._optional else self._outputs
        arrays = [output.checked(outputs, count) for output in produced]
        if not self._optional and count == len(requests) and all(map(_plain, requests)):
            return self._plain_rows(arrays)
        results = {o.name: o.rows(array, count) for o, array in zip(produced, arrays, strict=True)}
        answers = []
        stop = 0
        for request in requests:
            start, stop = stop, stop + (request.rows or 1)
            answers.append(self._answer(request, results, start, stop))
        return answers

    def _produced(self, outputs: Tensors) -> list[Output]:
        """The outputs of this run: optional ones may be missing."""
        return [output for output in self._outputs if output.name in outputs or not output.optional]

    def _plain_rows(self, arrays: list[Tensor]) -> list[Answer]:
        """The common batch, requests of one row without options, put together from one template."""
        template = self._template(*[array.shape[1:] for array in arrays])
        texts = [output.row_texts(array) for output, array in zip(self._outputs, arrays, strict=True)]
        return [Answer(body, None) for body in map(template.__mod__, zip(*texts, strict=True))]

    def _row_template(self, *shapes: tuple[int, ...]) -> bytes:
        """The answer to one row of such shapes without options, with %b in the place of each output's elements."""
        openings = [output.opening((1, *shape)) for output, shape in zip(self._outputs, shapes, strict=True)]
        tensors = [opening.replace(b"%", b"%%") + b"%b]}" for opening in openings]
        return b'%b,"outputs":[%b]}' % (self._head, b",".join(tensors))

    def _answer(self, request: InferRequest, results: Results, start: int, stop: int) -> Answer:
        tensors, tail = [], []
        for name, binary in request.outputs or [(name, request.binary) for name in results]:
            if name not in results:
                raise InvalidRequest(f"output '{name}' was asked for, but this run of {self._ref} has not produced it")
            if binary:
                tensor, data = results[name].binary(start, stop)
                tail.append(data)
            else:
                tensor = results[name].json(start, stop)
            tensors.append(tensor)
        head = self._head if request.id is None else b'%b,"id":%b' % (self._head, orjson.dumps(request.id))
        document = b'%b,"outputs":[%b]}' % (head, b",".join(tensors))
        return Answer(b"".join([document, *tail]), len(document) if tail else None)


def _plain(request: InferRequest) -> bool:
    return request.outputs is None and request.id is None and not request.binary
