"""A clock that jumps from event to event, and replicas on it: many simulated seconds take a moment."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

S = 1_000_000_000
"""Nanoseconds of a second."""


class Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._made = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._made += 1
        heappush(self._events, (self.now + int(seconds * S), self._made, action))

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.after(seconds, again)

        self.after(seconds, again)

    def arrivals(self, rate: Callable[[], float], random: Random, action: Callable[[], None]) -> None:
        """Independent arrivals, so many a second (Poisson)."""

        def again() -> None:
            action()
            self.after(random.expovariate(rate()), again)

        self.after(random.expovariate(rate()), again)

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s * S:
            self.now, _, action = heappop(self._events)
            action()
        self.now = int(until_s * S)


class Call:
    """A request in a replica."""

    def __init__(self, started: int, done: Callable[[int], None]) -> None:
        self.started = started
        self.done = done
        self.withdrawn = False


class Replica:
    """So many servers with one queue, first come first served; also a host of the balancer."""

    def __init__(self, clock: Clock, name: str, servers: int, service_s: Callable[[], float]) -> None:
        self.clock = clock
        self.name = name
        self.service_s = service_s
        self.waiting: dict[Call, None] = {}
        self.limit = 10_000
        self.started_at = 0.0
        self.runs = 0
        """Calls begun."""
        self._idle = servers
        self._queue: deque[Call] = deque()

    def send(self, done: Callable[[int], None]) -> Call:
        """`done` hears the latency in nanoseconds."""
        call = Call(self.clock.now, done)
        self.waiting[call] = None
        self._queue.append(call)
        self._start()
        return call

    def cancel(self, call: Call) -> None:
        """What runs is not stopped, what waits does not begin."""
        call.withdrawn = True
        self.waiting.pop(call, None)

    def _start(self) -> None:
        while self._idle and self._queue:
            call = self._queue.popleft()
            if not call.withdrawn:
                self._idle -= 1
                self.runs += 1
                self.clock.after(self.service_s(), lambda call=call: self._end(call))  # type: ignore[misc]

    def _end(self, call: Call) -> None:
        self._idle += 1
        if not call.withdrawn:
            del self.waiting[call]
            call.done(self.clock.now - call.started)
        self._start()
