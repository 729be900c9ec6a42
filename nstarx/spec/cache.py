"""Response caches: which answers of a route a gateway keeps, and what caches in front of it may do with them."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from nstarx.spec.quantity import Bytes
from nstarx.spec.record import Record

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
"""A field name (RFC 9110, 5.6.2)."""
FRAMING = frozenset(
    ("connection", "content-length", "content-type", "date", "expect", "host", "transfer-encoding", "upgrade")
)
"""Headers that say how a request travels or what form it has; an answer can't depend on them."""


def valid_header(name: str) -> str:
    """A header's name in lower case. Raises ValueError with the rule."""
    if not TOKEN.match(name) or name == "*":
        raise ValueError(f"'{name}' is not a header name; write it like x-tenant")
    if name.lower() in FRAMING:
        raise ValueError(f"'{name}' says how a request travels; name headers that change the answer")
    return name.lower()


HeaderName = Annotated[str, AfterValidator(valid_header)]


class CacheSpec(Record):
    """A route's response cache, one in each gateway process. Routes have none unless they ask for one.

    Only for versions whose answer follows from their input: a model that draws random numbers would be drawn once.
    """

    max_bytes: Bytes = 64 << 20
    """What one gateway process keeps for the route, bookkeeping included; the least recently used goes first."""
    max_entry_bytes: Bytes = 1 << 20
    """A request or an answer larger than this is not kept."""
    ttl_s: Annotated[float, Field(gt=0, le=86400 * 365, strict=False)] = 60.0
    """How long an answer is given again; also the `max-age` that clients and CDNs are told, in whole seconds."""
    vary: tuple[HeaderName, ...] = Field(default=(), max_length=16, strict=False)
    """Request headers on which answers depend: part of the key, and listed in `Vary`."""
    public: bool = False
    """True: `Cache-Control: public` and `Surrogate-Key`, for a CDN. False: `private`, so that only clients keep it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.max_entry_bytes <= self.max_bytes:
            raise ValueError("max_entry_bytes: must be above 0 and at most max_bytes")
        if len(set(self.vary)) < len(self.vary):
            raise ValueError("vary: names a header twice")
        return self
