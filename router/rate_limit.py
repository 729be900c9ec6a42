"""How many requests a caller may make: token buckets, and the fields that tell callers about them.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ATM Forum 1996; it
grants exactly what a token bucket does). Times are nanoseconds on one clock that the caller reads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

from nstarx.errors import NStarXError
from nstarx.spec.rate_limit import RateLimitSpec

S = 1_000_000_000
LOOKED_AT = 8
"""Buckets that are looked at for one that can be forgotten."""
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

    __slots__ = ("_buckets", "_interval", "_max_keys", "_tolerance", "forgotten", "fresh", "policy", "spec", "state")

    def __init__(self, spec: RateLimitSpec, shares: int = 1) -> None:
        self.spec = spec
        self.forgotten = 0
        """Callers forgotten before their buckets were full again: with more `max_keys` they would have got less."""
        self._buckets: OrderedDict[bytes, list[int]] = OrderedDict()
        """Caller to when its bucket is full again, in a list that is changed in place, which costs less than changing
        the dictionary. Who was looked at, or refused, last is last."""
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
        self.fresh = self._tolerance // self._interval, -(-self._interval // S)
        """What `grant` says to a caller whose bucket was full, which is most of those who stay below their rate."""

    def decide(self, key: bytes, now: int) -> Grant:
        """Grant a request, or refuse it and take nothing."""
        key = shortened(key)
        granted = self.grant(key, now)
        return Grant(True, *granted, 0) if granted else self.refuse(key, now)

    def wait(self, key: bytes, now: int) -> int:
        """Nanoseconds until a request would be granted; at most 0 means at once. `key` must be `shortened`."""
        bucket = self._buckets.get(key)
        return (bucket[0] if bucket else 0) - now - self._tolerance

    def grant(self, key: bytes, now: int) -> tuple[int, int] | None:
        """Grant a request, and say `remaining` and `reset_s`; None refuses it and takes nothing. `key` must be
        `shortened`."""
        bucket, interval = self._buckets.get(key), self._interval
        if bucket is None:
            self._add(key, now)
            return self.fresh
        ahead = bucket[0] - now
        if ahead <= 0:
            bucket[0] = now + interval
            return self.fresh
        tolerance = self._tolerance
        if ahead > tolerance:
            return None
        ahead += interval
        bucket[0] = now + ahead
        return (tolerance + interval - ahead) // interval, -(-ahead // S)

    def refuse(self, key: bytes, now: int) -> Grant:
        """Refuse a request. Its caller stays remembered, or asking on and on would make it forgotten."""
        self._buckets.move_to_end(key)
        return Grant(False, 0, -(-(self._buckets[key][0] - now) // S), -(-self.wait(key, now) // S))

    def _add(self, key: bytes, now: int) -> None:
        buckets = self._buckets
        if len(buckets) >= self._max_keys:
            self._forget(now)
        buckets[key] = [now + self._interval]

    def _forget(self, now: int) -> None:
        """Make room: of those not looked at for longest, the first whose bucket is full, or else fullest of a few.

        Whoever sends ever new keys must not have his own empty bucket forgotten.
        """
        buckets = self._buckets
        looked_at: dict[bytes, list[int]] = {}
        for _ in range(min(LOOKED_AT, len(buckets))):
            key, bucket = buckets.popitem(last=False)
            if bucket[0] <= now:
                break
            looked_at[key] = bucket
        else:
            del looked_at[min(looked_at, key=lambda key: looked_at[key][0])]
            self.forgotten += 1
        buckets.update(looked_at)


class RateLimits:
    """All limits of a route. A request needs the grant of each, and takes from none where one refuses."""

    __slots__ = ("limiters", "lines", "one")

    def __init__(self, limiters: Sequence[RateLimiter]) -> None:
        self.limiters = tuple(limiters)
        policies = b", ".join([limiter.policy for limiter in limiters])
        states = b", ".join([limiter.state for limiter in limiters])
        self.one = self.limiters[0] if len(self.limiters) == 1 else None
        """The limit, if there is no other."""
        self.lines = FIELDS % (policies, states) if limiters else b""
        """Of the answer's head, for what `grant` says of each limit."""

    def decide(self, keys: Sequence[bytes | None], now: int) -> RateLimited | bytes:
        """Lines of the answer's head that tell the caller what it has left; or the error, which has them too.

        `keys` has one for each limit, None where the request has none.
        """
        short = [shortened(key) if key else b"" for key in keys]
        for limiter, key in zip(self.limiters, short, strict=True):
            if limiter.wait(key, now) > 0:
                return self._refusal(short, now)
        grants = [limiter.grant(key, now) or (0, 0) for limiter, key in zip(self.limiters, short, strict=True)]
        return self.lines % tuple(chain.from_iterable(grants))

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
