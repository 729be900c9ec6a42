"""What a request asks, whatever way it is written: the part of a cache key that is made from the body."""

from hashlib import sha256
from struct import Struct
from typing import Any, NamedTuple

import orjson

from cluster.frames import FLAG_DEFLATE, FLAG_GZIP, NO_JSON_LENGTH

LIMIT = 32 << 10
"""Bytes of JSON that are read at the most: it happens on the event loop, and takes up to half a millisecond."""
COMPRESSED = FLAG_GZIP | FLAG_DEFLATE

_FORM = Struct("<cII")


class Canonical(NamedTuple):
    """A body, understood as far as a cache needs it."""

    digest: bytes
    """Equal for bodies that a replica can't tell apart, the id aside."""
    id: bytes
    """The request's id as JSON text; empty when it has none, or when the body was not read."""


def canonical(body: bytes, json: int, flags: int) -> Canonical:
    """The canonical form of a body: keys sorted, no white space, no id; numbers and binary data as they are.

    A body that is compressed, long or not what the protocol says stands for itself, byte for byte. Read with the very
    parser of the replicas, so that two bodies become one only where a replica sees one.
    """
    document = None if flags & COMPRESSED else _document(body, json)
    if document is None:
        return _exact(body, json, flags)
    id = document.pop("id", None)
    if id is not None and type(id) is not str:
        return _exact(body, json, flags)
    try:
        text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _exact(body, json, flags)
    digest = sha256(text)
    if json != NO_JSON_LENGTH:
        # JSON says itself where it ends, so what follows can't be taken for a part of it.
        digest.update(b"+")
        digest.update(memoryview(body)[json:])
    return Canonical(digest.digest(), b"" if id is None else orjson.dumps(id))


def brief(body: bytes) -> bytes:
    """A digest that stands for a long body.

    SHA-256, here and below: a caller who found a collision could choose another caller's answer. Processors have
    instructions for it, with which it takes half the time of BLAKE2.
    """
    return sha256(body).digest()


def _exact(body: bytes, json: int, flags: int) -> Canonical:
    # Canonical JSON begins with a brace, never with this.
    digest = sha256(_FORM.pack(b"=", json, flags & COMPRESSED))
    digest.update(body)
    return Canonical(digest.digest(), b"")


def _document(body: bytes, json: int) -> dict[str, Any] | None:
    length = len(body) if json == NO_JSON_LENGTH else json
    if not 0 < length <= min(len(body), LIMIT):
        return None
    try:
        document = orjson.loads(body if length == len(body) else memoryview(body)[:length])
    except orjson.JSONDecodeError:
        return None
    return document if type(document) is dict else None
