"""The stage before everything else that refuses callers who ask for more than they may."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nstarx.spec.rate_limit import RateLimitSpec
from router.facts import Facts
from router.rate_limit import LONGEST_KEY, RateLimited, RateLimiter, RateLimits, shortened
from router.sticky import key_of

if TYPE_CHECKING:
    from router.journey import Journey


class Limiting:
    """All rate limits of a route, in this gateway."""

    def __init__(self, specs: Sequence[RateLimitSpec], gateways: int = 1, known: "Limiting | None" = None) -> None:
        """`gateways` share each limit. Limits that `known` has as they are go on as they are."""
        kept = {limiter.spec: limiter for limiter in known.limiters} if known else {}
        self.specs = tuple(specs)
        self.refused = {spec.name: 0 for spec in specs}
        """Requests refused, by limit."""
        self._limits = RateLimits([kept.get(spec) or RateLimiter(spec) for spec in specs])
        self._finds = [key_of(spec.key) if spec.key else _everybody for spec in specs]
        self._find, self._one = self._finds[0], self._limits.one
        self._fresh = b""
        """Lines for callers whose buckets were full, where there is one limit."""
        self.share_among(gateways)
        if known:
            self.refused |= {name: count for name, count in known.refused.items() if name in self.refused}

    @property
    def limiters(self) -> tuple[RateLimiter, ...]:
        """One for each limit."""
        return self._limits.limiters

    def __call__(self, journey: "Journey") -> bool:
        """The stage."""
        facts, one = journey.facts, self._one
        if one is not None:
            # The usual case, at half of the price.
            key = self._find(facts) or b""
            granted = one.grant(key if len(key) <= LONGEST_KEY else shortened(key), journey.started)
            if granted is not None:
                journey.marks += self._fresh if granted is one.fresh else self._limits.lines % granted
                return True
        decision = self._limits.decide([find(facts) for find in self._finds], journey.started)
        if isinstance(decision, RateLimited):
            self.refused[decision.limit] += 1
            journey.marks += decision.fields
            journey.refuse(decision)
            return False
        journey.marks += decision
        return True

    def share_among(self, gateways: int) -> None:
        """So many gateways grant a part of each limit."""
        for limiter in self.limiters:
            limiter.share_among(gateways)
        self._fresh = self._limits.lines % self._one.fresh if self._one else b""

    def reading(self) -> list[dict[str, Any]]:
        """A copy for the wire."""
        return [
            {"limit": limiter.spec.name, "refused": self.refused[limiter.spec.name], "forgotten": limiter.forgotten}
            for limiter in self.limiters
        ]


def _everybody(facts: Facts) -> bytes | None:
    return None
