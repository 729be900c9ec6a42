"""Answers: the outputs of one run in, one HTTP body per request out.

Each output is written as JSON once per run and then cut into rows. NaN and infinities become null, for JSON has no such
numbers; binary data keeps them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import orjson
from orjson import OPT_SERIALIZE_NUMPY, dumps

from nstarx.errors import InvalidRequest
from nstarx.spec.model import ModelSpec
from nstarx.tensors import Tensors
from serving.codec.output import Output, holds_null
from serving.codec.request import InferRequest
from serving.codec.rows import OutputRows, rows_of

CACHED_TEMPLATES = 64
"""Models whose rows have any shape could ask for any number of them."""

Results = dict[str, OutputRows]


class Answer(NamedTuple):
    """A body, and how much of it is JSON where binary tensors follow (Inference-Header-Content-Length)."""

    body: bytes
    json_length: int | None
    valid: bool = True
    """False where it holds NaN or infinities in an output that doesn't allow them."""


class Bodies(list[bytes]):
    """Answers that are valid and JSON without binary data: their bodies."""


class Encoder:
    """Encodes the answers of one model version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._ref = str(spec.ref)
        self._outputs = [Output(tensor, self._ref) for tensor in spec.outputs]
        self._optional = any(output.optional for output in self._outputs)
        self._head = orjson.dumps({"model_name": spec.name, "model_version": spec.version})[:-1]
        self._after_head = len(self._head)
        self._template = lru_cache(CACHED_TEMPLATES)(self._plain_template)
        self._numeric = not self._optional and all(tensor.datatype != "BYTES" for tensor in spec.outputs)
        self._one_template = lru_cache(CACHED_TEMPLATES)(self._template_of_one)

    def encode(self, requests: Sequence[InferRequest], outputs: Tensors) -> list[Answer]:
        """The answers to `requests`, whose stacked inputs gave `outputs`.

        Raises ModelFailed where an output is missing or isn't what the signature says, and InvalidRequest where a
        BYTES output that isn't UTF-8 was asked for as JSON. Either may be one request's fault alone: after an error for
        several requests, run and encode each by itself.
        """
        count = sum([request.rows for request in requests])
        if (
            count == len(requests)
            and all(map(InferRequest.is_plain, requests))
            and (bodies := self.plain(count, 1, outputs))
        ):
            return [Answer(body, None) for body in bodies]
        produced = self._produced(outputs)
        results = {output.name: rows_of(output, output.checked(outputs, count), count) for output in produced}
        answers = []
        stop = 0
        for request in requests:
            start, stop = stop, stop + (request.rows or 1)
            answers.append(self._answer(request, results, start, stop))
        return answers

    def one(self, rows: int, outputs: Tensors) -> bytes | Answer:
        """The body for one request without options, or its answer where there is more to say. Raises as `encode`."""
        body = self._one(rows, outputs) if self._numeric else None
        return self.encode([InferRequest({}, rows)], outputs)[0] if body is None else body

    def plain(self, requests: int, rows: int, outputs: Tensors) -> Bodies | None:
        """The bodies for so many requests without options, of equally many rows (0: one request that isn't divided).

        All are written from one template. None where they need more than that: outputs may be missing, or hold what
        makes an answer invalid. Raises as `encode` does.
        """
        if self._optional:
            return None
        if requests == 1 and self._numeric:
            body = self._one(rows, outputs)
            return None if body is None else Bodies((body,))
        shapes, texts = [], []
        for output in self._outputs:
            array = output.checked(outputs, requests * rows)
            written = output.texts(array, requests)
            if output.finite and holds_null(b"".join(written)):
                return None
            texts.append(written)
            shapes.append((rows, *array.shape[1:]) if rows else array.shape)
        return Bodies(map(self._template(*shapes).__mod__, zip(*texts, strict=True)))

    def tagged(self, body: bytes, tag: bytes) -> bytes:
        """A plain body with a request's id in it, as `without_id` gave it."""
        at = self._after_head
        return body[:at] + tag + body[at:]

    def _one(self, rows: int, outputs: Tensors) -> bytes | None:
        """The body for one such request, whose outputs are numbers; None as in `plain`."""
        texts, shapes = [], []
        try:
            for output in self._outputs:
                array = outputs[output.name]
                if array.dtype is not output.accepted:
                    output.accept(array.dtype)
                text = dumps(array.ravel(), None, OPT_SERIALIZE_NUMPY)
                if output.finite and b"n" in text:
                    return None
                texts.append(text)
                shapes.append(array.shape)
        except (KeyError, AttributeError, TypeError):  # TypeError: orjson does not write them all.
            return None
        template = self._one_template(rows, *shapes)
        return None if template is None else template % tuple(texts)

    def _produced(self, outputs: Tensors) -> list[Output]:
        """The outputs of this run: optional ones may be missing."""
        return [output for output in self._outputs if output.name in outputs or not output.optional]

    def _plain_template(self, *shapes: tuple[int, ...]) -> bytes:
        """The answer of such shapes without options, with %b in the place of each output's elements."""
        openings = [output.opening(shape) for output, shape in zip(self._outputs, shapes, strict=True)]
        tensors = [opening.replace(b"%", b"%%") + b"%b]}" for opening in openings]
        return b'%b,"outputs":[%b]}' % (self._head, b",".join(tensors))

    def _template_of_one(self, rows: int, *shapes: tuple[int, ...]) -> bytes | None:
        """The same with brackets around the elements; None where these aren't the shapes of a run over so many rows."""
        if rows and any(shape[:1] != (rows,) for shape in shapes):
            return None
        return self._plain_template(*shapes).replace(b"[%b]}", b"%b}")

    def _answer(self, request: InferRequest, results: Results, start: int, stop: int) -> Answer:
        tensors, tail, valid = [], [], True
        for name, binary in request.outputs or [(name, request.binary) for name in results]:
            if name not in results:
                raise InvalidRequest(f"output '{name}' was asked for, but this run of {self._ref} has not produced it")
            if binary:
                tensor, data, finite = results[name].binary(start, stop)
                tail.append(data)
            else:
                tensor, finite = results[name].json(start, stop)
            tensors.append(tensor)
            valid = valid and finite
        head = self._head if request.id is None else b'%b,"id":%b' % (self._head, orjson.dumps(request.id))
        document = b'%b,"outputs":[%b]}' % (head, b",".join(tensors))
        return Answer(b"".join([document, *tail]), len(document) if tail else None, valid)
