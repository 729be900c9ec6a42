"""Calls that run together: their inputs, their answers, and what to run again when their run fails."""

from collections.abc import Collection

from nstarx.tensors import Tensor, Tensors
from serving.call import Call
from serving.codec import Answer, Bodies, Codec, InferRequest, id_of, stack

Encoded = Bodies | list[Answer]
"""One answer for each call."""


class Batch:
    """Calls of one group, each decoded by itself: one, or several that can be stacked."""

    __slots__ = ("calls", "large", "requests", "rows")

    def __init__(self, call: Call, request: InferRequest, large: bool = False) -> None:
        self.calls = [call]
        self.requests = [request]
        self.rows = request.rows
        """Of all calls; 0 where the version isn't batchable."""
        self.large = large
        """Whether its body was too large for the event loop; its run is taken to be, too."""

    def add(self, call: Call, request: InferRequest) -> None:
        """One more call of the same group."""
        self.calls.append(call)
        self.requests.append(request)
        self.rows += request.rows

    def inputs(self) -> Tensors:
        """What the model is given: read-only arrays, row after row."""
        return stack(self.requests)

    def encode(self, codec: Codec, outputs: Tensors) -> Encoded:
        """The answers. Raises as `Codec.encode` does."""
        requests = self.requests
        if self.rows == len(requests) and all(map(InferRequest.is_plain, requests)):
            bodies = codec.encode_plain(len(requests), 1, outputs)
            if bodies is not None:
                return bodies
        return codec.encode(requests, outputs)

    def without(self, dropped: Collection[Call]) -> "Batch":
        """The same without some of its calls, of which at least one stays."""
        first, *others = [pair for pair in zip(self.calls, self.requests, strict=True) if pair[0] not in dropped]
        batch = Batch(*first, self.large)
        for call, request in others:
            batch.add(call, request)
        return batch

    def split(self) -> "list[Batch]":
        """Every call by itself."""
        return [Batch(call, request) for call, request in zip(self.calls, self.requests, strict=True)]


class PlainBatch(Batch):
    """Plain calls of `rows_each` rows each, decoded and stacked in one go; 0 rows: one call that isn't divided."""

    __slots__ = ("_inputs", "rows_each")

    def __init__(self, calls: list[Call], inputs: Tensors, rows_each: int) -> None:
        self.calls = calls
        self.rows = len(calls) * rows_each
        self.large = False
        self._inputs = inputs
        self.rows_each = rows_each

    def inputs(self) -> Tensors:
        return self._inputs

    def encode(self, codec: Codec, outputs: Tensors) -> Encoded:
        bodies = codec.encode_plain(len(self.calls), self.rows_each, outputs)
        tags = [call.tag for call in self.calls]
        if bodies is None:
            return codec.encode([self._request(tag) for tag in tags], outputs)
        return Bodies(map(codec.tagged, bodies, tags)) if any(tags) else bodies

    def _request(self, tag: bytes) -> InferRequest:
        request = InferRequest({}, self.rows_each)
        request.id = id_of(tag)
        return request

    def without(self, dropped: Collection[Call]) -> "PlainBatch":
        kept = [index for index, call in enumerate(self.calls) if call not in dropped]
        inputs = {name: self._picked(array, kept) for name, array in self._inputs.items()}
        return PlainBatch([self.calls[index] for index in kept], inputs, self.rows_each)

    def split(self) -> list[Batch]:
        return list(self.cut(1))

    def cut(self, most: int) -> "list[PlainBatch]":
        """The same in batches of at most so many calls; nothing is copied."""
        return [self._part(start, start + most) for start in range(0, len(self.calls), most)]

    def _part(self, start: int, stop: int) -> "PlainBatch":
        if len(self.calls) == 1:
            return self
        rows = slice(start * self.rows_each, stop * self.rows_each)
        inputs = {name: array[rows] for name, array in self._inputs.items()}
        return PlainBatch(self.calls[start:stop], inputs, self.rows_each)

    def _picked(self, array: Tensor, kept: list[int]) -> Tensor:
        row = array.shape[1:]
        picked: Tensor = array.reshape(len(self.calls), self.rows_each, *row)[kept].reshape(-1, *row)
        picked.flags.writeable = False
        return picked
