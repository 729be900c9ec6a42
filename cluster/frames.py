"""Frames of the lane protocol, the same at both ends of a lane.

A lane is a byte stream. Each side first sends PREFACE (a magic word and the protocol version), then frames: a fixed
little-endian header and a payload.

    length u32   bytes of payload
    kind   u8    what it is, see Kind
    flags  u8    see the FLAG constants
    status u16   HTTP status of a response or of a stream's end, else 0
    id     u32   which request it belongs to, chosen by the gateway; 0 where none
    wait   u32   milliseconds until the request's deadline, 0 for none
    json   u32   bytes of JSON before binary tensor data, NO_JSON_LENGTH when the whole payload is JSON

The replica speaks first: CHALLENGE with a nonce. The gateway answers HELLO with the version it wants, a nonce and a
proof that it knows the replica's key; the replica answers READY with its own proof. Anything wrong is answered GOAWAY
with a sentence, and the end of the connection.
"""

import hmac
import struct
from enum import IntEnum

from nstarx.errors import LaneError

PROTOCOL_VERSION = 1
MAGIC = b"NSXLANE"
PREFACE = MAGIC + bytes([PROTOCOL_VERSION])

HEADER = struct.Struct("<IBBHIII")
NO_JSON_LENGTH = 0xFFFFFFFF
NONCE_BYTES = 16
PROOF_BYTES = 32
HANDSHAKE_LIMIT = 4096
"""Bytes of payload that a peer may send before it has proved who it is."""

FLAG_GZIP = 1
"""The payload is compressed with gzip."""
FLAG_DEFLATE = 2
"""The payload is compressed with zlib."""
FLAG_ACCEPT_GZIP = 4
FLAG_ACCEPT_DEFLATE = 8
FLAG_STREAM = 16
"""The client takes partial results as server-sent events."""
FLAG_TRACE = 64
"""The request is traced: its payload begins with its place in the trace, see `cluster.trace_context`."""
FLAG_INVALID = 32
"""The answer holds NaN or infinities, or what its signature does not allow."""


class Kind(IntEnum):
    CHALLENGE = 1
    HELLO = 2
    READY = 3
    REQUEST = 16
    RESPONSE = 17
    """A complete answer."""
    CHUNK = 18
    """One partial result of a stream."""
    END = 19
    """The stream is complete; the status says what it came to."""
    CANCEL = 20
    """Nobody waits for this request any more."""
    EXPIRED = 21
    """The request's deadline passed before its run; it was not run."""
    OVERLOADED = 22
    """The replica's queue is full; the request was not run."""
    GOAWAY = 23
    """No new requests here: the replica drains, or refuses the peer (payload: why)."""
    PING = 24
    PONG = 25
    STATS = 26
    """A question for the replica's counters."""
    COUNTERS = 27
    """The answer to STATS, JSON."""


Frame = tuple[int, int, int, int, int, int, int, bytes]
"""The header's fields in order, then the payload. A plain tuple: two are made for every request."""


def pack(kind: Kind, id: int = 0, payload: bytes = b"", *, status: int = 0, json: int = NO_JSON_LENGTH) -> bytes:
    """One frame, for everything but the hot path (which packs its headers itself)."""
    return HEADER.pack(len(payload), kind, 0, status, id, 0, json) + payload


class FrameReader:
    """Cuts a byte stream, however it arrives, into frames. Raises LaneError on what can't be one.

    Nothing is allocated from a claimed length; what has arrived of an unfinished frame is kept in pieces and joined
    once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._needed = len(PREFACE)
        self._greeted = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now."""
        if self._size:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._pieces)
        at = 0 if self._greeted else self._greet(data)
        frames: list[Frame] = []
        end = len(data)
        while end - at >= 20:
            header = HEADER.unpack_from(data, at)
            if header[0] > self.limit:
                raise LaneError(f"a frame of {header[0]} bytes is over the limit of {self.limit}")
            after = at + 20 + header[0]
            if after > end:
                break
            frames.append((*header, data[at + 20 : after]))
            at = after
        self._keep(data, at)
        return frames

    def _greet(self, data: bytes) -> int:
        """Check as much of the preface as is there; the offset of the first frame once it is complete."""
        magic, version = data[: len(MAGIC)], data[len(MAGIC) : len(PREFACE)]
        if not MAGIC.startswith(magic):
            raise LaneError("the peer does not speak the lane protocol")
        if version and version[0] != PROTOCOL_VERSION:
            raise LaneError(f"the peer speaks lane protocol {version[0]}, this side {PROTOCOL_VERSION}")
        self._greeted = bool(version)
        return len(PREFACE) if version else 0

    def _keep(self, data: bytes, at: int) -> None:
        rest = data[at:]
        self._pieces = [rest] if rest else []
        self._size = len(rest)
        if not self._greeted:
            self._needed = len(PREFACE)
        else:
            self._needed = 20 + HEADER.unpack_from(rest)[0] if len(rest) >= 20 else 20


def proof(key: bytes, side: bytes, own: bytes, other: bytes, ref: bytes) -> bytes:
    """What shows that `side` knows the key: an HMAC over both nonces and the version, never sent twice."""
    return hmac.digest(key, b"|".join((side, own, other, ref)), "sha256")


def hello(key: bytes, nonce: bytes, challenge: bytes, ref: str) -> bytes:
    """Payload of HELLO: nonce, proof, version."""
    return nonce + proof(key, b"gateway", nonce, challenge, ref.encode()) + ref.encode()


def check_hello(key: bytes, challenge: bytes, ref: str, payload: bytes) -> bytes:
    """The gateway's nonce, if its HELLO is right. Raises LaneError."""
    nonce, given = payload[:NONCE_BYTES], payload[NONCE_BYTES : NONCE_BYTES + PROOF_BYTES]
    wanted = payload[NONCE_BYTES + PROOF_BYTES :]
    if not hmac.compare_digest(given, proof(key, b"gateway", nonce, challenge, wanted)):
        raise LaneError("the peer does not know this replica's key")
    if wanted != ref.encode():
        raise LaneError(f"this replica serves {ref}")
    return nonce
