"""A second replica asked beside the first, when that takes long; whoever answers first counts.

(The Tail at Scale: Dean and Barroso 2013.) Calls of one arm wait equally long for their second try, so they stand in
line by the time at which it is due, and one timer for the first of the line does for all.
"""

from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections import deque
from math import ceil
from time import perf_counter_ns
from typing import TYPE_CHECKING

from cluster.frames import FLAG_INVALID, FLAG_STREAM
from nstarx.errors import DeadlineExceeded, Overloaded, Unavailable
from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.retry import HedgeSpec
from router.budget import CallBudget
from router.hedge_delay import HedgeDelay
from router.tally import Tally

if TYPE_CHECKING:
    from router.lanes import Lane
    from router.tries import Tries

MILLISECOND = 1_000_000
EARLY_NS = MILLISECOND // 2
"""Timers of the event loop count whole milliseconds, and may be early by a part of one."""
BURST = 50
"""Further tries that a quiet time may save up."""


class Hedging:
    """When the calls of one arm get a second try, and how many may."""

    __slots__ = ("_budget", "_delay", "_latency", "_line", "_loop", "_timer", "ns", "spec", "tally")

    def __init__(self, spec: HedgeSpec, tally: Tally, now: float) -> None:
        """`now` is on the clock of `time.monotonic`."""
        self.spec = spec
        self.tally = tally
        self._budget = CallBudget(spec.budget_percent, BURST)
        self._latency = [0] * BUCKETS
        """Of answered calls, from when the first replica was asked: what waited before that says nothing about
        replicas."""
        self._delay = HedgeDelay(spec, now)
        self.ns = self._delay.ns
        """After so long; None while that is not known."""
        self._line: deque[tuple[int, Tries]] = deque()
        self._timer: TimerHandle | None = None
        self._loop: AbstractEventLoop | None = None

    def refresh(self, now: float) -> None:
        """Learn from the latest second."""
        self._delay.refresh(self._latency, now)
        self.ns = self._delay.ns

    def answered(self, ns: int) -> None:
        """A call was answered so long after the first replica was asked."""
        self._latency[bucket_of(ns)] += 1

    def watch(self, journey: "Tries", since: int) -> int:
        """Give a call, which has waited since then, a further try when that is due; when it is, 0 for never."""
        ns = self.ns
        if ns is None or journey.flags & FLAG_STREAM or len(journey.arm.balancer.hosts) < 2:
            return 0
        due = since + ns
        self._line.append((due, journey))
        if self._timer is None:
            self._set(due, since)
        return due

    def take(self) -> bool:
        """Begin a further try, if the budget has room for it."""
        if self._budget.take(self.tally.started):
            self.tally.hedges += 1
            return True
        self.tally.hedges_refused += 1
        return False

    def _set(self, due: int, now: int) -> None:
        if self._loop is None:
            self._loop = get_running_loop()
        self._timer = self._loop.call_later(max(ceil((due - now) / MILLISECOND), 1) / 1000, self._ring)

    def _ring(self) -> None:
        line, now = self._line, perf_counter_ns()
        self._timer = None
        while line and (line[0][0] <= now + EARLY_NS or line[0][1].response_complete):
            due, journey = line.popleft()
            journey.hedge(due)
        if line and self._timer is None:
            self._set(line[0][0], now)


class Hedge:
    """A further try of a call, beside the first. The `Waiter` of its lane."""

    __slots__ = ("body", "flags", "id", "journey", "json", "lane", "sent", "traced", "wait_ms")

    def __init__(self, journey: "Tries", lane: "Lane", now: int) -> None:
        self.journey = journey
        self.lane = lane
        self.body, self.flags, self.json = journey.body, journey.flags, journey.json
        self.wait_ms = max((journey.deadline - now) // MILLISECOND, 1)
        self.sent = now
        self.traced = journey.traced.beside() if journey.traced else None
        self.id = lane.send(self, self.traced.asked(lane) if self.traced else b"")

    @property
    def due(self) -> int:
        """When something has to happen even without an answer."""
        return self.journey.due

    def expire(self) -> None:
        """That time has come."""
        self.journey.expire()

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        failed = status >= 500 or flags & FLAG_INVALID
        if self.journey.prefers(self, not failed):
            self.journey.on_response(status, flags, json, body)
        elif failed:
            self.journey.blame(self.lane, status)
            self.forgotten(status)

    def on_chunk(self, body: bytes) -> None:
        """Streams have no further try; what comes here belongs to nobody."""

    def on_end(self, status: int) -> None:
        if self.journey.prefers(self, False):
            self.journey.on_end(status)
        else:
            self.forgotten(status)

    def on_expired(self) -> None:
        if self.journey.prefers(self, False):
            self.journey.on_expired()
        else:
            self.forgotten(DeadlineExceeded.status)

    def on_overloaded(self) -> None:
        if self.journey.prefers(self, False):
            self.journey.on_overloaded()
        else:
            self.forgotten(Overloaded.status)

    def on_lane_lost(self) -> None:
        if self.journey.prefers(self, False):
            self.journey.on_lane_lost()
        else:
            self.forgotten(Unavailable.status)

    def forgotten(self, status: int) -> None:
        """What it came to is of no consequence."""
        if self.traced:
            self.traced.came_to(status)
