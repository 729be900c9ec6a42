"""One model version's codec: both directions in one object."""

from nstarx.spec.model import ModelSpec
from serving.codec.decoding import Decoder
from serving.codec.encoding import Encoder


class Codec:
    """Turns HTTP bodies into tensors that fit a version's signature, and tensors into HTTP bodies."""

    def __init__(self, spec: ModelSpec) -> None:
        decoder, encoder = Decoder(spec), Encoder(spec)
        # Methods of their own would be one call more in each direction, for every request.
        self.decode = decoder.decode
        """See `Decoder.decode`."""
        self.decode_plain = decoder.plain
        """See `Decoder.plain`."""
        self.decode_one = decoder.one
        """See `Decoder.one`."""
        self.tagged = encoder.tagged
        """See `Encoder.tagged`."""
        self.encode = encoder.encode
        """See `Encoder.encode`."""
        self.encode_plain = encoder.plain
        """See `Encoder.plain`."""
        self.encode_one = encoder.one
        """See `Encoder.one`."""
