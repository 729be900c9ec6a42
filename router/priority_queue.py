"""Requests that wait for room: a bounded queue with priorities and deadlines."""

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from nstarx.spec.admission import QueueSpec

E = TypeVar("E")
NEVER = 1 << 63


class Pushed(NamedTuple, Generic[E]):
    """What became of somebody who wants to wait, and of those who did."""

    ticket: int | None
    """With which it may leave again; None when there was no room for it."""
    expired: list[E]
    """Those whose deadline has passed, and who wait no more."""
    displaced: E | None
    """Somebody of lower priority who had to make room."""


class PriorityQueue(Generic[E]):
    """The highest priority first, who came first in it first; the lowest and latest leaves when it is full.

    Deadlines are nanoseconds on the caller's clock. Expired entries are never given out, and are cleared when their
    places are needed; looking for them costs time in proportion to the queue, but only when there is one to be found.
    """

    __slots__ = ("_default", "_earliest", "_last", "_levels", "_room", "_rooms", "size")

    def __init__(self, spec: QueueSpec) -> None:
        levels = range(1, spec.priority_levels + 1)
        self._levels: list[OrderedDict[int, tuple[int, E]]] = [OrderedDict() for _ in levels]
        self._room = spec.max_queue_size
        self._rooms = [min(spec.level_queue_size.get(level, self._room), self._room) for level in levels]
        self._default = spec.default_priority_level - 1
        self._last = 0
        self._earliest = NEVER
        """No deadline is before this one."""
        self.size = 0
        """Entries, expired ones that were not cleared yet included."""

    def push(self, entry: E, priority: int, deadline: int, now: int) -> Pushed[E]:
        """Let somebody wait, if there is room or somebody of lower priority makes it."""
        place = priority - 1 if 0 < priority <= len(self._levels) else self._default
        expired = self.clear(now) if self._full(place) else []
        displaced = None
        if len(self._levels[place]) < self._rooms[place] and self.size >= self._room:
            displaced = self._displace(place)
        if self._full(place):
            return Pushed(None, expired, displaced)
        return Pushed(self._append(place, deadline, entry), expired, displaced)

    def pop(self, now: int) -> tuple[E | None, list[E]]:
        """Who is next, if anybody, and those who would have been but are too late."""
        expired: list[E] = []
        for level in self._levels:
            while level:
                _, (deadline, entry) = level.popitem(last=False)
                self.size -= 1
                if deadline > now:
                    return entry, expired
                expired.append(entry)
        return None, expired

    def withdraw(self, ticket: int) -> bool:
        """Somebody does not want to wait any more. False when it no longer did."""
        waited = self._levels[ticket % len(self._levels)].pop(ticket, None) is not None
        self.size -= waited
        return waited

    def _full(self, place: int) -> bool:
        return self.size >= self._room or len(self._levels[place]) >= self._rooms[place]

    def _append(self, place: int, deadline: int, entry: E) -> int:
        """A ticket tells its level, so that withdrawing need not look for it."""
        self._last += 1
        ticket = self._last * len(self._levels) + place
        self._levels[place][ticket] = deadline, entry
        self._earliest = min(self._earliest, deadline)
        self.size += 1
        return ticket

    def _displace(self, place: int) -> E | None:
        """The latest of the lowest priority below this one."""
        for level in reversed(self._levels[place + 1 :]):
            if level:
                self.size -= 1
                return level.popitem()[1][1]
        return None

    def clear(self, now: int) -> list[E]:
        """Those whose deadline has passed, and who wait no more."""
        if now < self._earliest:
            return []
        expired: list[E] = []
        for level in self._levels:
            for ticket in [ticket for ticket, (deadline, _) in level.items() if deadline <= now]:
                expired.append(level.pop(ticket)[1])
        self.size -= len(expired)
        deadlines = [deadline for level in self._levels for deadline, _ in level.values()]
        self._earliest = min(deadlines, default=NEVER)
        return expired
