"""Which replica of a version takes the next request.

Everything that changes seldom (who is there, ejected, warming up) is worked out when it changes: `refresh`. Choosing
then costs two lengths and a comparison.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from math import pow
from random import random
from typing import Generic, Protocol, TypeVar

from nstarx.spec.balancing import BalancingSpec
from router.ring import Ring, point_of, ring_of

TURNS = 50
"""Turns of a host with a full share while others have less: shares are right within 2 % of a full one."""


class Host(Protocol):
    """What requests are spread over. Its load is the length of what waits in it: a counter would cost a call."""

    started_at: float
    """When it came: seconds on the caller's monotonic clock."""

    @property
    def name(self) -> str:
        """Identity on the ring."""

    @property
    def waiting(self) -> Sized:
        """Requests in flight."""

    @property
    def limit(self) -> int:
        """Requests that it may have at a time."""


H = TypeVar("H", bound=Host)


def in_panic(healthy: int, hosts: int, threshold_percent: float) -> bool:
    """So few are left that ejections had better be ignored. (Envoy's `healthy_panic_threshold`.)"""
    return healthy * 100 < threshold_percent * hosts


def weight(age_s: float, spec: BalancingSpec) -> float:
    """Share of a full one that a host of this age gets. (Envoy's slow start.)"""
    if age_s >= spec.slow_start_s:
        return 1.0
    return max(spec.min_weight_percent / 100, pow(max(age_s, 0.0) / spec.slow_start_s, 1 / spec.aggression))


class Balancer(Generic[H]):
    """Chooses among the hosts of one version.

    `pick()` answers the less loaded of two, or None when there is no host with room. Every change puts another in its
    place, made for the hosts that there are: callers look it up each time.
    """

    __slots__ = (
        "_candidates", "_ejected", "_random", "_returned", "_ring", "_slowness", "hosts", "panic", "pick", "spec",
        "warming",
    )  # fmt: skip

    pick: Callable[[], H | None]

    def __init__(self, spec: BalancingSpec, random: Callable[[], float] = random) -> None:
        self.spec = spec
        self.hosts: list[H] = []
        self.panic = False
        """Ejections are ignored, because too few hosts are left."""
        self.warming = False
        """A host is in slow start: `refresh` is wanted every second or so."""
        self._random = random
        self._slowness: Mapping[str, float] = {}
        self._ejected: set[str] = set()
        self._returned: dict[str, float] = {}
        """When hosts came back that had been ejected."""
        self.refresh(0.0)

    def join(self, host: H, now: float) -> None:
        """A host has come; its `started_at` says since when it has been there."""
        self.hosts.append(host)
        self.refresh(now)

    def leave(self, host: H, now: float) -> None:
        """A host has gone, if it was there."""
        if host in self.hosts:
            self.hosts.remove(host)
            self._ejected.discard(host.name)
            self._returned.pop(host.name, None)
            self.refresh(now)

    def eject(self, name: str, now: float) -> None:
        """A host gets no requests until it is reinstated."""
        self._ejected.add(name)
        self.refresh(now)

    def reinstate(self, name: str, now: float) -> None:
        """A host that was ejected comes back, in slow start like a new one."""
        self._ejected.discard(name)
        self._returned[name] = now
        self.refresh(now)

    def refresh(self, now: float) -> None:
        """Work out anew who may be chosen: after every change, and while hosts warm up."""
        healthy = [host for host in self.hosts if host.name not in self._ejected]
        self.panic = in_panic(len(healthy), len(self.hosts), self.spec.panic_threshold_percent)
        self._candidates = candidates = self.hosts.copy() if self.panic else healthy
        self._ring: Ring | None = ring_of([h.name for h in candidates]) if self.spec.policy == "ring_hash" else None
        ages = [weight(now - self._returned.get(host.name, host.started_at), self.spec) for host in candidates]
        self.warming = min(ages, default=1.0) < 1.0
        costs = [self._slowness.get(host.name, 1.0) for host in candidates]
        shares = [age * pow(cost, -self.spec.latency_bias) for age, cost in zip(ages, costs, strict=True)]
        if min(shares, default=1.0) == max(shares, default=1.0):
            self.pick = less_loaded(candidates, self._random)
        else:
            warm = [place for place, age in enumerate(ages) if age == 1.0] or range(len(candidates))
            others = [(candidates[place], costs[place]) for place in warm]
            self.pick = rationed(candidates, shares, others, self._random)

    def slow_down(self, slowness: Mapping[str, float], now: float) -> None:
        """Give hosts that are so many times as slow as the rest fewer requests; those left out are as fast."""
        if self.spec.latency_bias and slowness != self._slowness:
            self._slowness = dict(slowness)
            self.refresh(now)

    def pick_other(self, tried: Sequence[H]) -> H | None:
        """The least loaded host that has not been tried, for a retry or a hedge; None when there is none with room."""
        others = [host for host in self._candidates if host not in tried and len(host.waiting) < host.limit]
        return min(others, key=lambda host: len(host.waiting), default=None)

    def pick_for(self, key: bytes | None) -> H | None:
        """The host that a key belongs to; the next of the ring that has room where that one is too loaded.

        No host takes more than `hash_balance_factor` per cent of the mean load, rounded up. (Consistent hashing with
        bounded loads: Mirrokni, Thorup and Zadimoghaddam 2018.) Requests without a key go to the less loaded of two.
        """
        ring = self._ring
        if ring is None or key is None or not ring.points:
            return self.pick()
        point, hosts = point_of(key), self._candidates
        host = hosts[ring.place(point)]
        if not host.waiting and host.limit:
            return host
        bound = self._bound()
        if len(host.waiting) < min(bound, host.limit):
            return host
        walk = (hosts[place] for place in ring.walk(point))
        return next((host for host in walk if len(host.waiting) < min(bound, host.limit)), None) or with_room(hosts)

    def _bound(self) -> float:
        """Requests that one host may have, the next one included."""
        factor = self.spec.hash_balance_factor
        if factor is None:
            return float("inf")
        load = 1 + sum([len(host.waiting) for host in self._candidates])
        return -(-factor * load // (100 * len(self._candidates)))


def less_loaded(hosts: Sequence[H], random: Callable[[], float]) -> Callable[[], H | None]:
    """The less loaded of the host whose turn it is and another. (Two choices: Mitzenmacher 2001.)"""
    if len(hosts) == 1:
        [only] = hosts
        return lambda: only if len(only.waiting) < only.limit else None
    if not hosts:
        return lambda: None
    count, others, turn = len(hosts), len(hosts) - 1, 0

    def pick() -> H | None:
        nonlocal turn
        turn = (turn + 1) % count
        host, other = hosts[turn], hosts[turn - 1 - int(random() * others)]
        if len(other.waiting) < len(host.waiting):
            host = other
        return host if len(host.waiting) < host.limit else with_room(hosts)

    return pick


def rationed(
    hosts: Sequence[H], shares: Sequence[float], others: Sequence[tuple[H, float]], random: Callable[[], float]
) -> Callable[[], H | None]:
    """As above, but turns are in proportion to shares: who warms up or is slow gets its turns and little more.

    The other is one of `others`, and the choice falls on it when its load times its cost is less: a host ten times as
    slow helps out when the rest has ten times its load. In its own turn a slow host needs only be the less loaded, so
    that it is heard of when it is fast again. (Load times latency: Finagle's Peak EWMA.)
    """
    turns = in_turns(hosts, shares)
    rounds, count, turn = len(turns), len(others), 0

    def pick() -> H | None:
        nonlocal turn
        turn = (turn + 1) % rounds
        host = turns[turn]
        other, cost = others[int(random() * count)]
        if (len(other.waiting) + 1) * cost <= len(host.waiting):
            host = other
        return host if len(host.waiting) < host.limit else with_room(hosts)

    return pick


def with_room(hosts: Sequence[H]) -> H | None:
    """The first host that may have one more."""
    return next((host for host in hosts if len(host.waiting) < host.limit), None)


def in_turns(hosts: Sequence[H], weights: Sequence[float]) -> list[H]:
    """Turns in proportion to weights, each host's spread evenly over the round; everybody has one."""
    counts = [max(1, round(TURNS * share)) for share in weights]
    due = [((n + 0.5) / count, place) for place, count in enumerate(counts) for n in range(count)]
    return [hosts[place] for _, place in sorted(due)]
