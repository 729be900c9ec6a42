"""What a request says about caching: `Cache-Control` and `If-None-Match`."""

import re
from functools import lru_cache
from typing import NamedTuple

ANY_AGE = 1 << 62
NO_AGE = -1
SECOND = 1_000_000_000

_TAG = re.compile(rb'(?:W/)?("[^"]*")')


class Terms(NamedTuple):
    """On what terms a client takes an answer that was made for somebody else."""

    vary: tuple[bytes | None, ...] = ()
    """Values of the headers on which the route's answers depend."""
    max_age: int = ANY_AGE
    """The oldest answer that it takes, in nanoseconds; NO_AGE for none."""
    stores: bool = True
    """Whether its answer may be kept for others."""
    if_none_match: bytes = b""
    """ETags of answers that the client has."""


@lru_cache(maxsize=256)
def read_cache_control(value: bytes) -> tuple[int, bool]:
    """`max_age` and `stores` of a request's Cache-Control (RFC 9111, 5.2.1); what isn't known is passed over."""
    max_age, stores = ANY_AGE, True
    for directive in value.lower().split(b","):
        name, _, argument = directive.strip().partition(b"=")
        if name == b"no-store":
            max_age, stores = NO_AGE, False
        elif name == b"no-cache":
            max_age = NO_AGE
        elif name == b"max-age":
            max_age = min(max_age, _nanoseconds(argument.strip(b'" ')))
    return max_age, stores


def _nanoseconds(seconds: bytes) -> int:
    """What can't be read is taken for the strictest, which is never wrong. An age of 0 asks for a new answer."""
    if not seconds.isdigit() or not seconds.strip(b"0"):
        return NO_AGE
    return int(seconds) * SECOND if len(seconds) < 10 else ANY_AGE


def matches(etag: bytes, if_none_match: bytes) -> bool:
    """Whether the client has the answer with this ETag (weak comparison; RFC 9110, 13.1.2)."""
    return if_none_match.strip() == b"*" or etag in _TAG.findall(if_none_match)
