"""A share of one thread's time, for work that may be left undone."""


class TimeShare:
    """A bucket that fills with a share of the time that passes, and that work empties. Times are nanoseconds."""

    def __init__(self, share: float, burst_ns: int) -> None:
        """`burst_ns` is what the bucket holds at most, and at first."""
        self._share = share
        self._burst = self._left = float(burst_ns)
        self._at = 0

    def left(self, now: int) -> bool:
        """Whether something may begin. It may take more than is left, and then what follows waits the longer."""
        if self._at:
            self._left = min(self._left + (now - self._at) * self._share, self._burst)
        self._at = now
        return self._left > 0

    def spend(self, spent: int) -> None:
        """Something has taken this long."""
        self._left -= spent
