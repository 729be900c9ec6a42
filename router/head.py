"""What the gateway reads from a request's headers. Bodies pass unread."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeVar

from cluster.frames import (
    FLAG_ACCEPT_DEFLATE,
    FLAG_ACCEPT_GZIP,
    FLAG_DEFLATE,
    FLAG_GZIP,
    FLAG_STREAM,
    NO_JSON_LENGTH,
)
from nstarx.errors import InvalidRequest, NStarXError, UnsupportedEncoding, UnsupportedMediaType

N = TypeVar("N", int, float)

JSON_LENGTH = b"inference-header-content-length"
TIMEOUT = b"x-request-timeout-seconds"
MEDIA_TYPES = frozenset((b"application/json", b"application/octet-stream", b""))
ENCODINGS = {b"": 0, b"identity": 0, b"gzip": FLAG_GZIP, b"x-gzip": FLAG_GZIP, b"deflate": FLAG_DEFLATE}


class Head(NamedTuple):
    """The headers of an inference request, understood."""

    json_length: int = NO_JSON_LENGTH
    """Bytes of JSON before the tensors (binary tensor data extension); NO_JSON_LENGTH when all is JSON."""
    flags: int = 0
    """Frame flags: how the body is compressed, what the client accepts."""
    timeout_s: float | None = None
    """The client's own time limit."""
    error: NStarXError | None = None
    """Why the request is refused, whatever its body."""


def read_head(headers: dict[bytes, bytes]) -> Head:
    """Understand the headers (names in lower case)."""
    get = headers.get
    return _understand(
        get(b"content-type", b""),
        get(JSON_LENGTH),
        get(b"content-encoding", b""),
        get(b"accept-encoding", b""),
        get(b"accept", b""),
        get(TIMEOUT),
    )


@lru_cache(maxsize=1024)
def _understand(
    media: bytes, json_length: bytes | None, encoding: bytes, accepted: bytes, accept: bytes, timeout: bytes | None
) -> Head:
    try:
        _check_media(media)
        return Head(
            NO_JSON_LENGTH if json_length is None else _number(JSON_LENGTH, json_length, int, 0, NO_JSON_LENGTH - 1),
            _encoding(encoding) | _accepted(accepted) | (FLAG_STREAM if b"text/event-stream" in accept else 0),
            None if timeout is None else _number(TIMEOUT, timeout, float, 0.001, 86400),
        )
    except NStarXError as error:
        return Head(error=error)


def _check_media(media: bytes) -> None:
    if media.partition(b";")[0].strip().lower() not in MEDIA_TYPES:
        raise UnsupportedMediaType(media.decode("latin-1"))


def _number(name: bytes, text: bytes, kind: Callable[[bytes], N], least: N, most: N) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise InvalidRequest(
            f"header {name.decode()} is '{text.decode('latin-1')}'; it must be a number from {least} to {most}"
        )
    return number


def _encoding(encoding: bytes) -> int:
    flag = ENCODINGS.get(encoding.strip().lower())
    if flag is None:
        raise UnsupportedEncoding(encoding.decode("latin-1"))
    return flag


def _accepted(accepted: bytes) -> int:
    """The encodings a client accepts; a quality of 0 refuses one (RFC 9110, 12.5.3)."""
    flags = 0
    for part in accepted.lower().split(b","):
        name, _, quality = part.partition(b";")
        if not quality.replace(b" ", b"").rstrip(b"0.").endswith(b"q="):
            flags |= {b"gzip": FLAG_ACCEPT_GZIP, b"deflate": FLAG_ACCEPT_DEFLATE}.get(name.strip(), 0)
    return flags
