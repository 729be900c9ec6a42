"""One model version's codec: both directions in one object."""

from collections.abc import Sequence

from nstarx.spec.model import ModelSpec
from nstarx.tensors import Tensors
from serving.codec.decoding import Decoder
from serving.codec.encoding import Answer, Encoder
from serving.codec.request import Body, InferRequest


class Codec:
    """Turns HTTP bodies into tensors that fit a version's signature, and tensors into HTTP bodies."""

    def __init__(self, spec: ModelSpec) -> None:
        self._decoder = Decoder(spec)
        self._encoder = Encoder(spec)

    def decode(self, body: Body, json_length: int | None = None) -> InferRequest:
        """See `Decoder.decode`."""
        return self._decoder.decode(body, json_length)

    def encode(self, requests: Sequence[InferRequest], outputs: Tensors) -> list[Answer]:
        """See `Encoder.encode`."""
        return self._encoder.encode(requests, outputs)
