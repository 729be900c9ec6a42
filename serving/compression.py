"""Bodies compressed by clients, and answers compressed for them."""

import zlib

from cluster.frames import FLAG_ACCEPT_DEFLATE, FLAG_ACCEPT_GZIP, FLAG_DEFLATE, FLAG_GZIP
from nstarx.errors import InvalidRequest, PayloadTooLarge

GZIP, ZLIB = 31, 15
"""Window sizes that tell zlib which container to use."""
WORTHWHILE = 4096
"""Smaller answers go as they are: compressing would cost more than sending."""
INFLATED_LIMIT = 1 << 28


def inflate(body: bytes, flags: int, limit: int = INFLATED_LIMIT) -> bytes:
    """The plain body. Raises InvalidRequest when it is damaged, PayloadTooLarge when it grows past `limit` bytes."""
    stream = zlib.decompressobj(GZIP if flags & FLAG_GZIP else ZLIB)
    try:
        # One byte more than allowed: zlib may have read all of a body and still owe a part of it.
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not what Content-Encoding says: {error}") from None
    if len(plain) > limit:
        raise PayloadTooLarge(limit)
    if not stream.eof:
        raise InvalidRequest("the compressed body is truncated")
    if stream.unused_data:
        raise InvalidRequest("the compressed body goes on after its end; compress it in one piece")
    return plain


def deflate(body: bytes, flags: int) -> tuple[bytes, int]:
    """The answer as the client accepts it, and the flag that says how."""
    if not flags & (FLAG_ACCEPT_GZIP | FLAG_ACCEPT_DEFLATE):
        return body, 0
    flag, window = (FLAG_GZIP, GZIP) if flags & FLAG_ACCEPT_GZIP else (FLAG_DEFLATE, ZLIB)
    stream = zlib.compressobj(level=1, wbits=window)
    return stream.compress(body) + stream.flush(), flag
