"""What has happened in a cluster, as records with a sentence each, and the log that keeps the latest of them.

The coordinator has no storage (docs/decisions/0005): gateways hold the latest events, and hand them to its next life.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import Field, JsonValue

from nstarx.spec.record import Record

SIZE = 1000
"""Events that a log keeps."""


class EventKind(StrEnum):
    """Kinds of events; `meaning` is one sentence about each."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "EventKind":
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.meaning = meaning
        return kind

    SUSPECTED = "Suspected", "A version shows signs of trouble, but the evidence is not enough to demote it."
    DEMOTED = "Demoted", "A version was taken out of a route's traffic because of its outcomes."
    DEMOTION_OBSERVED = "DemotionObserved", "A version would have been demoted, but its route only observes."
    DEMOTION_REFUSED = "DemotionRefused", "A version was not demoted, because too little of its route would be left."
    DEMOTION_UNDONE = "DemotionUndone", "A person put a demoted version back into traffic."
    PROBATION = "Probation", "A demoted version gets a small share of traffic again, to prove itself."
    RECOVERED = "Recovered", "A version is healthy again and has its whole share of traffic."
    GIVEN_UP = "GivenUp", "A version was demoted too often and stays out of traffic until a person decides."
    WEIGHTS_CHANGED = "WeightsChanged", "A route divides its traffic by other weights."
    ROUTES_APPLIED = "RoutesApplied", "A new routes document is in force."
    SETTINGS_APPLIED = "SettingsApplied", "Live settings of a version were changed."
    FLAG_CHANGED = "FlagChanged", "A rule of a route was switched on or off."
    REPLICA_JOINED = "ReplicaJoined", "A replica is ready and takes requests."
    REPLICA_LEFT = "ReplicaLeft", "A replica said goodbye, or was dropped because it was silent for too long."
    REPLICA_EJECTED = "ReplicaEjected", "A gateway sends a replica nothing for a while, because it fails or is slow."
    REPLICA_RETURNED = "ReplicaReturned", "An ejected replica takes requests again."
    GATEWAY_JOINED = "GatewayJoined", "A gateway follows the coordinator."
    GATEWAY_LEFT = "GatewayLeft", "A gateway said goodbye, or was forgotten because it was silent for too long."
    COORDINATOR_RESTARTED = "CoordinatorRestarted", "A new coordinator took over what a gateway remembers of the last."
    SHADOW_READY = "ShadowReady", "A shadow's answers are close enough to the primary's for it to become a canary."
    SHADOW_RESET = "ShadowReset", "What a shadow has shown was forgotten, and it begins anew."
    EXPERIMENT_STARTED = "ExperimentStarted", "An experiment assigns requests to its arms."
    EXPERIMENT_STOPPED = "ExperimentStopped", "An experiment assigns no more requests."
    EXPERIMENT_DECIDED = "ExperimentDecided", "An experiment has a winner, or shows that there is no difference."
    EXPERIMENT_SKEWED = (
        "ExperimentSkewed",
        "An experiment's arms got other shares than they should, so it can't decide.",
    )
    RESCUES_EXHAUSTED = (
        "RescuesExhausted",
        "A route has spent its budget for rescues; failures reach clients until it refills.",
    )
    CACHE_PURGED = "CachePurged", "Cached answers were dropped by a surrogate key."


class Event(Record):
    """Something that has happened."""

    number: int
    """Rises from event to event, also across lives of the coordinator; not without gaps."""
    time: float
    """When, in seconds of Unix time."""
    kind: Annotated[EventKind, Field(strict=False)]
    sentence: Annotated[str, Field(min_length=1)]
    """What has happened, for people."""
    route: str | None = None
    """The route it is about, if it is about one; so with the next two."""
    version: str | None = None
    gateway: str | None = None
    details: dict[str, JsonValue] = {}
    """For machines: numbers, evidence, what was before and what is after."""


class EventLog:
    """The latest events, oldest first.

    Numbers begin at the milliseconds of the log's birth. So they are above those of any former life that made less than
    one event a millisecond, and whoever follows with an old number goes on without a gap, even where nobody is left to
    tell the new life of the former.
    """

    def __init__(self, born: float, size: int = SIZE) -> None:
        """`born` is Unix time in seconds."""
        self._size = size
        self._events: list[Event] = []
        self._own = self._next = int(born * 1000)
        """The first number of this life, and the next one."""
        self._dropped = 0
        self.counts: Counter[str] = Counter()
        """How many of each kind have been heard of, those included that are no longer kept."""
        self._changed = asyncio.Event()

    def add(
        self,
        kind: EventKind,
        time: float,
        sentence: str,
        *,
        route: str | None = None,
        version: str | None = None,
        gateway: str | None = None,
        details: Mapping[str, Any] = {},
    ) -> Event:
        """A new event. What isn't JSON in `details` is written as text: an event is too late to refuse anything."""
        event = Event(
            number=self._next,
            time=time,
            kind=kind,
            sentence=sentence,
            route=route,
            version=version,
            gateway=gateway,
            details=_plain(details),
        )
        self._next += 1
        self.counts[kind.value] += 1
        self._keep([*self._events, event])
        return event

    def extend(self, events: Iterable[Event]) -> None:
        """Keep events that another log has numbered, those alone that are newer than all here."""
        newest = self._events[-1].number if self._events else -1
        new = [event for event in events if event.number > newest]
        self.counts.update(event.kind.value for event in new)
        self._keep([*self._events, *new])

    def after(self, number: int, limit: int = SIZE) -> tuple[Event, ...]:
        """The first `limit` events with a higher number."""
        start = bisect_right(self._events, number, key=_number)
        return tuple(self._events[start : start + limit])

    def latest(self, limit: int = SIZE) -> tuple[Event, ...]:
        """The last `limit` events."""
        return tuple(self._events[max(len(self._events) - limit, 0) :])

    def missed(self, number: int) -> bool:
        """True when events with a higher number are no longer kept: who reads on from there has a gap."""
        return number < self._dropped

    async def wait(self, number: int, timeout_s: float, limit: int = SIZE) -> tuple[Event, ...]:
        """Like `after`, as soon as there is one; empty after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.after(number, 1):
                    await self._changed.wait()
        return self.after(number, limit)

    def adopt(self, events: Iterable[Event]) -> None:
        """Take over what a gateway remembers of former lives.

        Where the clock was set back, so that some of that has numbers above this life's own, the own events are
        numbered anew behind it: somebody may see an event twice, but nobody misses one.
        """
        former = {event.number: event for event in self._events if event.number < self._own}
        own = [event for event in self._events if event.number >= self._own]
        for event in events:
            former.setdefault(event.number, event)
        shift = max(max(former, default=0) + 1 - self._own, 0)
        self._own += shift
        self._next += shift
        own = [event.model_copy(update={"number": event.number + shift}) for event in own] if shift else own
        self._keep([*(former[number] for number in sorted(former)), *own])

    def _keep(self, events: list[Event]) -> None:
        too_many = max(len(events) - self._size, 0)
        if too_many:
            self._dropped = max(self._dropped, events[too_many - 1].number)
        self._events = events[too_many:]
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _number(event: Event) -> int:
    return event.number


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing with the caller's, in JSON's types alone."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    copied: dict[str, Any] = orjson.loads(orjson.dumps(dict(details), default=str, option=options))
    return copied
