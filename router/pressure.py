"""Whether a gateway has time for anything but its clients."""

INTERVAL_S = 0.1
"""Between two looks."""
MOST_LATE_NS = 20_000_000
"""A look that comes later than this says that the event loop, or the whole machine, is behind."""
MOST_CPU = 0.75
"""Part of one CPU that the event loop's thread may have used since the look before."""


class Pressure:
    """What the last look showed. It costs two readings of clocks ten times a second, and requests nothing."""

    def __init__(self) -> None:
        self.busy = False
        """True until the next look when the event loop was late, or at work nearly all the time."""
        self._at = self._cpu = 0

    def look(self, now: int, cpu: int) -> None:
        """To be called every `INTERVAL_S`. `now` and `cpu`: nanoseconds on the clock, and used by the loop's thread."""
        passed, used = now - self._at, cpu - self._cpu
        first = not self._at
        self._at, self._cpu = now, cpu
        late = passed - int(INTERVAL_S * 1e9) > MOST_LATE_NS
        self.busy = not first and (late or used > MOST_CPU * passed)
