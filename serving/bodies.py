"""Bodies of calls, decoded: small ones where they are, large ones in a worker thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cluster.frames import FLAG_DEFLATE, FLAG_GZIP
from nstarx.errors import PayloadTooLarge
from serving.call import Call
from serving.codec import Codec, InferRequest
from serving.compression import INFLATED_LIMIT, inflate

COMPRESSED = FLAG_GZIP | FLAG_DEFLATE
LARGE = 1 << 19
"""Bytes of a body, as sent or inflated, that would hold the event loop for too long."""

Decoded = InferRequest | Exception
"""A request, or why the body isn't one."""


def decoded(codec: Codec, call: Call, limit: int) -> InferRequest:
    """A call's body as a request. Raises InvalidRequest, and PayloadTooLarge where it has more bytes than `limit`."""
    payload = inflate(call.payload, call.flags, limit) if call.flags & COMPRESSED else call.payload
    if len(payload) > limit:
        raise PayloadTooLarge(limit)
    return codec.decode(payload, call.json_length)


class LargeBodies:
    """Decodes one large body after another in a thread of its own, while the event loop goes on."""

    def __init__(
        self, codec: Codec, loop: asyncio.AbstractEventLoop, done: Callable[[Call, Decoded, int], None]
    ) -> None:
        """`done` is called on the loop, with the call, what became of its body, and when it was submitted."""
        self._codec = codec
        self._loop = loop
        self._done = done
        self._thread = ThreadPoolExecutor(1, "decode")

    def submit(self, call: Call, now: int) -> None:
        """Decode this call's body when those before it are done."""
        self._thread.submit(self._decode, call, now)

    def close(self) -> None:
        """Decode nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _decode(self, call: Call, began: int) -> None:
        result: Decoded
        try:
            result = decoded(self._codec, call, max(INFLATED_LIMIT, len(call.payload)))
        except Exception as error:
            result = error
        self._loop.call_soon_threadsafe(self._done, call, result, began)
