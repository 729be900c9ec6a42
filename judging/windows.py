"""What gateways count, as differences: which statuses are a version's fault, and counts over a sliding stretch of time.

Gateways report counters that only grow. A window is the difference of two readings, put into the bucket of the time it
was taken in; windows of several gateways are summed bucket by bucket, in any order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from math import ceil
from operator import attrgetter, sub
from typing import NamedTuple, Self

from nstarx.histogram import BUCKETS

INVALID_OUTPUT = 597
"""How an answer of 200 with NaN, infinities or a wrong shape is counted. No such status is registered, or sent."""
LOST_ANSWER = 598
"""How a call is counted whose replica died with it in hand, whatever the client got to see."""
ERRORS = frozenset({500, 502})
TIMEOUT = 504
FAILURES = ERRORS | {TIMEOUT, INVALID_OUTPUT, LOST_ANSWER}
UNJUDGED = frozenset({429, 499, 503})
"""Refused for lack of room, or given up by the client: they say nothing about the version, good or bad."""

NO_LATENCY = (0,) * BUCKETS
FIRST = 10
"""Request ids kept with a window."""
STEPS = 5
"""Buckets to an interval."""
KEPT = 20 * STEPS
"""Buckets kept, the empty ones among them: twenty intervals."""


def is_failure(status: int) -> bool:
    """Whether a call that ended so is held against the version: 500, 502, 504, lost answers and invalid outputs.

    Not 4xx, which is the caller's fault, not 499, where the caller left, and not 503, which is overload.
    """
    return status in FAILURES


class Failing(NamedTuple):
    """A failed call."""

    at: float
    """Seconds, on the clock of whoever keeps the window."""
    id: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls of one version for one route, and what became of them."""

    calls: int = 0
    """Answered calls that say something about the version, good or bad."""
    failures: int = 0
    timeouts: int = 0
    """Among the failures, as are the next two."""
    invalid: int = 0
    lost: int = 0
    latency: tuple[int, ...] = NO_LATENCY
    """Histogram (nstarx.histogram) of the calls' durations."""

    @classmethod
    def of(cls, codes: Mapping[int, int], latency: Sequence[int] = NO_LATENCY) -> Self:
        """From calls by status, among them INVALID_OUTPUT and LOST_ANSWER."""
        return cls(
            calls=sum(count for status, count in codes.items() if status not in UNJUDGED),
            failures=sum(count for status, count in codes.items() if status in FAILURES),
            timeouts=codes.get(TIMEOUT, 0),
            invalid=codes.get(INVALID_OUTPUT, 0),
            lost=codes.get(LOST_ANSWER, 0),
            latency=tuple(latency),
        )

    def __add__(self, other: Self) -> Self:
        return self.total((self, other))

    @classmethod
    def total(cls, parts: Sequence["Counts"]) -> Self:
        """The sum of all."""
        numbers = {name: sum(map(attrgetter(name), parts)) for name in NUMBERS}
        latencies = [part.latency for part in parts if part.latency is not NO_LATENCY]
        return cls(**numbers, latency=tuple(map(sum, zip(*latencies, strict=True))) if latencies else NO_LATENCY)

    def since(self, earlier: Self) -> Self:
        """What came after an earlier reading of the same counters; all of it when they count from zero again."""
        numbers = {name: getattr(self, name) - getattr(earlier, name) for name in NUMBERS}
        same = self.latency is earlier.latency
        latency = NO_LATENCY if same else tuple(map(sub, self.latency, earlier.latency))
        return self if min(*numbers.values(), *latency) < 0 else type(self)(**numbers, latency=latency)


NO_CALLS = Counts()
NUMBERS = tuple(field.name for field in fields(Counts) if field.name != "latency")


class Window(NamedTuple):
    """What happened in a stretch of time."""

    seconds: float = 0.0
    """Length of the stretch, up to now."""
    counts: Counts = Counts()
    failing: tuple[Failing, ...] = ()
    """The first failed calls, at most ten."""


NO_TIME = Window()


@dataclass(frozen=True, slots=True)
class Windows:
    """A sliding past: counts by buckets of time, the oldest forgotten."""

    step_s: float
    """Width of a bucket in seconds; it begins at a multiple of it."""
    buckets: tuple[tuple[int, Window], ...] = ()
    """Number of each bucket, and what happened in it, oldest first."""

    @classmethod
    def over(cls, interval_s: float) -> Self:
        """Windows that keep twenty intervals."""
        return cls(interval_s / STEPS)

    def add(self, counts: Counts, now: float, failing: Iterable[Failing] = ()) -> Self:
        """With what came in up to now."""
        return self + type(self)(self.step_s, ((self._bucket(now), Window(self.step_s, counts, _first(failing))),))

    def __add__(self, other: Self) -> Self:
        """Both pasts in one. Associative and commutative, so the order in which gateways report doesn't matter."""
        if self.step_s != other.step_s:
            raise ValueError(f"windows of {self.step_s:g} s and {other.step_s:g} s can't be merged; make them alike")
        found: dict[int, Window] = dict(self.buckets)
        for number, window in other.buckets:
            found[number] = _merged((found[number], window)) if number in found else window
        newest = max(found, default=0)
        kept = sorted(number for number in found if number > newest - KEPT)
        return type(self)(self.step_s, tuple((number, found[number]) for number in kept))

    def last(self, seconds: float, now: float) -> Window:
        """The latest stretch of that length, cut at the border of a bucket."""
        return self.between(now - seconds, now)

    def between(self, start: float, end: float) -> Window:
        """What happened after the bucket of `start`, up to and with that of `end`."""
        return _merged(self._within(start, end))._replace(seconds=end - (self._bucket(start) + 1) * self.step_s)

    def _within(self, start: float, end: float) -> list[Window]:
        first, last = self._bucket(start), self._bucket(end)
        return [window for number, window in self.buckets if first < number <= last]

    def reach(self, calls: int, seconds: float, now: float) -> float:
        """How far back there have been that many calls: `seconds`, or twice, four times … as much, up to all."""
        while sum(w.counts.calls for w in self._within(now - seconds, now)) < calls and seconds < self.kept_s:
            seconds = min(2 * seconds, self.kept_s)
        return seconds

    @property
    def kept_s(self) -> float:
        return KEPT * self.step_s

    def _bucket(self, at: float) -> int:
        """A reading tells of the time before it, so a bucket holds its end and not its beginning."""
        return ceil(at / self.step_s) - 1


def _merged(windows: Iterable[Window]) -> Window:
    windows = tuple(windows)
    counts = Counts.total([window.counts for window in windows])
    failing = chain.from_iterable(window.failing for window in windows)
    return Window(max((window.seconds for window in windows), default=0.0), counts, _first(failing))


def _first(failing: Iterable[Failing]) -> tuple[Failing, ...]:
    return tuple(sorted(set(failing))[:FIRST])
