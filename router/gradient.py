"""A limit on concurrency that follows latency: as much as the version takes without becoming slower.

The gradient controller of Envoy's adaptive concurrency filter (after Netflix's concurrency-limits), with two
differences: a limit that was not reached does not grow, so that a quiet hour does not end in a limit of a thousand; and
a slow model is not held at the least limit for longer than a twentieth of the time. Times are nanoseconds on the
caller's clock.
"""

from collections.abc import Callable
from math import sqrt
from random import random

from nstarx.histogram import BUCKETS, bucket_of, quantile
from nstarx.spec.admission import AdmissionSpec

MIN_SAMPLES = 10
"""Answers without which an interval goes on."""
STRONGEST = 0.5, 2.0
"""What one interval may do to the limit."""
MEASURING_SHARE = 0.05
"""Part of the interval between measurements after which MIN_SAMPLES answers are enough for one."""
STUCK = 5
"""Intervals at the least limit after which latency at rest is measured again: it may have risen for good."""


class GradientLimit:
    """Requests under way, and how many there may be. Also the samples that decide it."""

    __slots__ = (
        "_counts", "_deferred", "_due", "_epoch", "_measure_at", "_opened", "_random", "_spec", "_stuck",
        "in_flight", "limit", "measuring", "min_rtt_s", "pressed", "rate",
    )  # fmt: skip

    def __init__(self, spec: AdmissionSpec, now: int, random: Callable[[], float] = random) -> None:
        self._spec = spec
        self._random = random
        self.in_flight = 0
        self.limit = spec.min_concurrency
        self.min_rtt_s: float | None = None
        """Latency at rest; None before the first measurement."""
        self.rate = 0.0
        """Answers a second in the last interval."""
        self.pressed = False
        """Somebody found no room in this interval."""
        self._measure(now)

    def enter(self) -> bool:
        """Begin a request, if there is room."""
        if self.in_flight < self.limit:
            self.in_flight += 1
            return True
        self.pressed = True
        return False

    def leave(self, started: int, now: int) -> None:
        """A request that began then has ended.

        One that ran into its deadline took at least so long, and counts; one that failed or was withdrawn must `drop`.
        """
        self.in_flight -= 1
        if started >= self._epoch:
            self._counts[bucket_of(now - started)] += 1

    def drop(self) -> None:
        """A request has ended in a way that says nothing about latency."""
        self.in_flight -= 1

    def update(self, now: int) -> None:
        """Change the limit, when it is time. To be called every 20 to 100 ms, and when somebody waits."""
        if self.measuring:
            if sum(self._counts) >= self._wanted(now):
                self._measured(now)
        elif now >= self._measure_at or self._stuck >= STUCK:
            self._measure(now)
        elif now >= self._due and sum(self._counts) >= MIN_SAMPLES:
            self._adjust(now)

    def _measure(self, now: int) -> None:
        """Let few requests through, and sample those alone that begin under this rule."""
        self.measuring = True
        self._deferred, self.limit = self.limit, self._spec.min_concurrency
        self._epoch = now
        self._open(now)

    def _wanted(self, now: int) -> int:
        """Answers that end a measurement."""
        spec = self._spec.min_rtt
        enough = now - self._epoch > spec.interval_s * MEASURING_SHARE * 1e9
        return min(MIN_SAMPLES, spec.request_count) if enough else spec.request_count

    def _measured(self, now: int) -> None:
        spec = self._spec.min_rtt
        self.measuring = False
        self.min_rtt_s = self._sample()
        self.limit = self._deferred
        self._stuck = 0
        self._measure_at = now + int(spec.interval_s * (1 + spec.jitter_percent / 100 * self._random()) * 1e9)
        self._open(now)

    def _adjust(self, now: int) -> None:
        self.rate = sum(self._counts) / (now - self._opened) * 1e9
        grown = self._gradient() * self.limit
        wanted = int(grown + sqrt(grown))
        if wanted < self.limit or self.pressed:
            self.limit = min(max(wanted, self._spec.min_concurrency), self._spec.max_concurrency_limit)
        self._stuck = self._stuck + 1 if wanted <= self._spec.min_concurrency else 0
        self._open(now)

    def _gradient(self) -> float:
        """Latency at rest, buffer included, as a multiple of the present one, within bounds."""
        at_rest = (self.min_rtt_s or 0.0) * (1 + self._spec.min_rtt.buffer_percent / 100)
        least, most = STRONGEST
        return min(max(at_rest / self._sample(), least), most)

    def _sample(self) -> float:
        return quantile(self._counts, self._spec.sample_percentile / 100) or 1e-9

    def _open(self, now: int) -> None:
        """A new interval begins."""
        self._counts = [0] * BUCKETS
        self._opened = now
        self._due = now + int(self._spec.update_interval_s * 1e9)
        self.pressed = False
