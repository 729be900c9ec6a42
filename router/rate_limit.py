"""How many requests a caller may make: token buckets, and the fields that tell callers about them.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ATM Forum 1996; it
grants exactly what a token bucket does). Times are nanoseconds on one clock that the caller reads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from nstarx.errors import NStarXError
from nstarx.spec.rate_limit import RateLimitSpec

S = 1_000_000_000
LONGEST_KEY = 64
"""Bytes of a key that is kept as it is; of longer ones a digest is kept."""
FIELDS = b"ratelimit-policy: %b\r\nratelimit: %b\r\n"
"""Lines of an answer's head (draft-ietf-httpapi-ratelimit-headers-10)."""


class RateLimited(NStarXError):
    """The caller has used up what it may; 429 (RFC 6585, 4)."""

    status, code = 429, "rate_limited"

    def __init__(self, spec: RateLimitSpec, retry_after_s: int, fields: bytes = b"") -> None:
        """`fields` are lines for the answer's head, besides Retry-After."""
        super().__init__(
            f"limit '{spec.name}' grants {spec.requests} requests in {spec.window_s} s; retry after {retry_after_s} s"
        )
        self.limit = spec.name
        self.retry_after_s = retry_after_s
        self.fields = fields


class Grant(NamedTuple):
    """What one limit says to one request."""

    allowed: bool
    remaining: int
    """Requests that may follow at once."""
    reset_s: int
    """Whole seconds until the bucket is full again."""
    retry_after_s: int
    """Whole seconds until a request is granted; 0 where this one was."""


class RateLimiter:
    """One limit, in one gateway."""

    __slots__ = ("_due", "_interval", "_max_keys", "_tolerance", "forgotten", "policy", "spec", "state")

    def __init__(self, spec: RateLimitSpec, shares: int = 1) -> None:
        self.spec = spec
        self.forgotten = 0
        """Callers forgotten before their buckets were full again: with more `max_keys` they would have got less."""
        self._due: OrderedDict[bytes, int] = OrderedDict()
        """Caller to when its bucket is full again; who was seen last is last."""
        self._max_keys = spec.max_keys
        self.policy = b'"%b";q=%d;w=%d' % (spec.name.encode(), spec.requests, spec.window_s)
        """Its member of RateLimit-Policy."""
        self.state = b'"%b";r=%%d;t=%%d' % spec.name.encode()
        """Its member of RateLimit, for `remaining` and `reset_s`."""
        self.share_among(shares)

    def share_among(self, shares: int) -> None:
        """So many gateways serve the route: grant one part of the limit, though never less than one at a time."""
        self._interval = -(-self.spec.window_s * S * shares // self.spec.requests)
        self._tolerance = (max((self.spec.burst or self.spec.requests) // shares, 1) - 1) * self._interval

    def decide(self, key: bytes, now: int) -> Grant:
        """Grant a request, or refuse it and take nothing."""
        key = shortened(key)
        return self.refuse(key, now) if self.wait(key, now) > 0 else self.take(key, now)

    def wait(self, key: bytes, now: int) -> int:
        """Nanoseconds until a request would be granted; at most 0 means at once. `key` must be `shortened`."""
        return self._due.get(key, 0) - now - self._tolerance

    def take(self, key: bytes, now: int) -> Grant:
        """Grant a request, which `wait` says may be."""
        due, interval = self._due, self._interval
        full_at = due.get(key, now)
        ahead = (full_at - now if full_at > now else 0) + interval
        due[key] = now + ahead
        due.move_to_end(key)
        if len(due) > self._max_keys:
            self.forgotten += due.popitem(last=False)[1] > now
        return Grant(True, (self._tolerance + interval - ahead) // interval, -(-ahead // S), 0)

    def refuse(self, key: bytes, now: int) -> Grant:
        """Refuse a request. Its caller stays remembered, or asking on and on would make it forgotten."""
        self._due.move_to_end(key)
        return Grant(False, 0, -(-(self._due[key] - now) // S), -(-self.wait(key, now) // S))


class RateLimits:
    """All limits of a route. A request needs the grant of each, and takes from none where one refuses."""

    __slots__ = ("_lines", "limiters")

    def __init__(self, limiters: Sequence[RateLimiter]) -> None:
        self.limiters = tuple(limiters)
        self._lines = FIELDS % (b", ".join(limiter.policy for limiter in limiters), b"%b")

    def decide(self, keys: Sequence[bytes | None], now: int) -> RateLimited | bytes:
        """Lines of the answer's head that tell the caller what it has left; or the error, which has them too.

        `keys` has one for each limit, None where the request has none.
        """
        short = [shortened(key or b"") for key in keys]
        for limiter, key in zip(self.limiters, short, strict=True):
            if limiter.wait(key, now) > 0:
                return self._refusal(short, now)
        states = [
            limiter.state % limiter.take(key, now)[1:3] for limiter, key in zip(self.limiters, short, strict=True)
        ]
        return self._lines % b", ".join(states) if states else b""

    def _refusal(self, keys: Sequence[bytes], now: int) -> RateLimited:
        """By the limit that makes the caller wait longest; the answer tells of those alone that refused."""
        asked = zip(self.limiters, keys, strict=True)
        refused = [(limiter, limiter.refuse(key, now)) for limiter, key in asked if limiter.wait(key, now) > 0]
        longest, grant = max(refused, key=lambda pair: pair[1].retry_after_s)
        policies = b", ".join(limiter.policy for limiter, _ in refused)
        states = b", ".join(limiter.state % grant[1:3] for limiter, grant in refused)
        return RateLimited(longest.spec, grant.retry_after_s, FIELDS % (policies, states))


def shortened(key: bytes) -> bytes:
    """The key, or a digest where it is long: what callers send must not fill the memory."""
    return key if len(key) <= LONGEST_KEY else blake2b(key, digest_size=LONGEST_KEY).digest()
