"""Whether a gateway has time for anything but its clients."""

import time

INTERVAL_S = 0.1
"""Between two looks."""
MOST_LATE_NS = 20_000_000
"""A look that comes later than this says that the event loop is behind."""
MOST_AT_WORK = 0.75
"""Part of the time that the event loop's thread may have run, or waited for a CPU, since the look before."""
SCHEDULE = "/proc/thread-self/schedstat"
"""What Linux has counted for a thread: nanoseconds on a CPU, and waiting for one."""


class Pressure:
    """What the last look showed. It costs some microseconds ten times a second, and requests nothing."""

    def __init__(self) -> None:
        self.busy = False
        """True until the next look when the event loop was late, or at work nearly all the time."""
        self._at = self._worked = 0

    def look(self, now: int, worked: int) -> None:
        """To be called every `INTERVAL_S`. `now`: nanoseconds on the clock; `worked`: as `at_work` says."""
        passed, spent = now - self._at, worked - self._worked
        first = not self._at
        self._at, self._worked = now, worked
        late = passed - int(INTERVAL_S * 1e9) > MOST_LATE_NS
        self.busy = not first and (late or spent > MOST_AT_WORK * passed)


def at_work() -> int:
    """Nanoseconds that this thread has had something to do: it ran or waited for a CPU, which others had.

    Where the system doesn't tell of the waiting, only what it ran counts.
    """
    try:
        with open(SCHEDULE, "rb") as schedule:
            ran, waited, _ = schedule.read().split()
    except (OSError, ValueError):
        return time.thread_time_ns()
    return int(ran) + int(waited)
