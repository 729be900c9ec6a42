"""Single flight: of identical requests at the same time one is run, and the others wait for its answer.

Whatever ends a flight comes back as turns: pairs of a follower's waiter and what it gets. The caller carries them out.
"""

from typing import Any, Generic, NamedTuple, TypeVar

from router.cached import Hit
from router.shelf import Key, Raw

W = TypeVar("W")

MAX_FAILURES = 1
"""Failures of one flight after which its followers still wait for each other; then each runs for itself, so that a sick
version's callers don't queue behind each other."""


class Asked(NamedTuple):
    """A request that was not found by its bytes."""

    raw: Raw
    key: Key
    id: bytes
    """As JSON text; empty when it has none."""
    flags: int
    """Flags with which it is to be sent."""


class Lead:
    """The right and the duty to run a request, and to say how that ended."""

    __slots__ = ("asked", "epoch", "flags", "flight")

    def __init__(self, flags: int, asked: Asked | None = None, flight: "Flight[Any] | None" = None, epoch: int = 0):
        self.flags = flags
        """Flags with which the request is to be sent."""
        self.asked = asked
        """None: the answer is not for the cache."""
        self.flight = flight
        """None: nobody follows."""
        self.epoch = epoch
        """Purges before it."""


class Follow(Generic[W]):
    """A request that waits for another's answer."""

    __slots__ = ("asked", "deadline", "flight", "waiter")

    def __init__(self, flight: "Flight[W]", asked: Asked, waiter: W, deadline: int) -> None:
        self.flight = flight
        self.asked = asked
        self.waiter = waiter
        self.deadline = deadline


class Flight(Generic[W]):
    """A request being run, and those who wait for its answer, in the order in which they came."""

    __slots__ = ("asked", "deadline", "failures", "followers", "lead")

    def __init__(self, asked: Asked, deadline: int, epoch: int) -> None:
        self.asked = asked
        self.deadline = deadline
        """Of the leader: after it, somebody else leads."""
        self.failures = 0
        self.followers: dict[Follow[W], None] = {}
        self.lead = Lead(asked.flags, asked, self, epoch)


Turn = tuple[W, Hit | Lead | None]
"""A waiter, and what it gets: an answer, the lead, or None because its deadline has passed."""


class Flights(Generic[W]):
    """The requests being run. `W` is whatever the caller knows its waiting requests by."""

    def __init__(self) -> None:
        self._docked: dict[Raw | Key, Flight[W]] = {}
        """Those that take followers."""
        self._all: dict[Flight[W], None] = {}
        self.epoch = 0
        """Purges so far: what was begun before one is not kept after it."""

    def __bool__(self) -> bool:
        return bool(self._all)

    def get(self, key: Raw | Key) -> Flight[W] | None:
        """The flight of a request, by either key."""
        return self._docked.get(key)

    def begin(self, asked: Asked, deadline: int) -> Lead:
        """A flight with nobody in it but its leader."""
        flight: Flight[W] = Flight(asked, deadline, self.epoch)
        self._docked[asked.raw] = self._docked[asked.key] = flight
        self._all[flight] = None
        return flight.lead

    def join(self, flight: Flight[W], asked: Asked, waiter: W, deadline: int) -> Follow[W]:
        """One more waits."""
        follow = Follow(flight, asked, waiter, deadline)
        flight.followers[follow] = None
        return follow

    def land(self, lead: Lead) -> list[Follow[W]]:
        """The flight of a lead is over; who waited."""
        return self._land(lead.flight) if lead.flight else []

    def release(self, lead: Lead) -> list[Turn[W]]:
        """The flight of a lead is over, and everybody runs for itself."""
        return [(follow.waiter, Lead(follow.asked.flags)) for follow in self.land(lead)]

    def failed(self, lead: Lead, now: int) -> list[Turn[W]]:
        """The leader failed."""
        flight = lead.flight
        if flight is None or flight.lead is not lead:
            return []
        flight.failures += 1
        return self.release(lead) if flight.failures > MAX_FAILURES else self._hand_on(flight, now)

    def abandoned(self, lead: Lead, now: int) -> list[Turn[W]]:
        """The leader left."""
        return self._hand_on(lead.flight, now) if lead.flight and lead.flight.lead is lead else []

    def undock(self) -> None:
        """After a purge: those who wait get what they wait for, and whoever comes gets a new run."""
        self.epoch += 1
        self._docked.clear()

    def sweep(self, now: int) -> list[Turn[W]]:
        """Nobody waits longer than its deadline, nor for a leader that is past its own."""
        turns: list[Turn[W]] = []
        for flight in list(self._all):
            for follow in [follow for follow in flight.followers if follow.deadline <= now]:
                del flight.followers[follow]
                turns.append((follow.waiter, None))
            if flight.deadline <= now:
                turns += self._hand_on(flight, now)
        return turns

    def _hand_on(self, flight: Flight[W], now: int) -> list[Turn[W]]:
        """The first who still has time leads; nobody, and the flight is over."""
        turns: list[Turn[W]] = []
        while flight.followers:
            follow = next(iter(flight.followers))
            del flight.followers[follow]
            if follow.deadline > now:
                flight.deadline = follow.deadline
                flight.lead = Lead(follow.asked.flags, follow.asked, flight, self.epoch)
                return [*turns, (follow.waiter, flight.lead)]
            turns.append((follow.waiter, None))
        self._land(flight)
        return turns

    def _land(self, flight: Flight[W]) -> list[Follow[W]]:
        self._all.pop(flight, None)
        for key in (flight.asked.raw, flight.asked.key):
            if self._docked.get(key) is flight:
                del self._docked[key]
        followers, flight.followers = list(flight.followers), {}
        return followers
