"""How much more work than its share a route may make: counted in integers, without a clock."""

from collections.abc import Callable

from nstarx.spec.retry import RetrySpec


class RetryBudget:
    """Bounds the retries under way to a share of the requests under way. (Envoy's `retry_budget`.)

    A count for each request would multiply the load of a version in trouble; a share cannot.
    """

    __slots__ = ("_floor", "_percent", "overflow", "retrying")

    def __init__(self, spec: RetrySpec) -> None:
        self._percent = spec.budget_percent
        self._floor = spec.min_retry_concurrency * 100
        self.retrying = 0
        """Retries under way."""
        self.overflow = 0
        """Retries refused."""

    def take(self, live: int) -> bool:
        """Begin a retry, if it may be while so many requests are under way; what was begun is given back at its end."""
        if self.retrying * 100 < max(self._floor, self._percent * live):
            self.retrying += 1
            return True
        self.overflow += 1
        return False

    def give_back(self) -> None:
        """A retry has ended, however it did."""
        self.retrying -= 1


class CallBudget:
    """Bounds extra calls (hedges, rescues) to a share of all calls, whenever one looks.

    What was not used is kept for `burst` extra calls and no more, so that an hour without any does not pay for a storm.
    Calls are counted elsewhere; their cumulative count is handed in when an extra is wanted, so that a call without one
    costs nothing.
    """

    __slots__ = ("_burst", "_calls", "_credit", "_on_spent", "_percent", "_spent", "overflow", "taken")

    def __init__(self, percent: float, burst: int, start: int = 0, on_spent: Callable[[], None] = lambda: None) -> None:
        """`start` extra calls may be made before the first share is earned; 0 keeps the share exact from the first.

        `on_spent` is told of the first call that is refused after one that was made.
        """
        self._on_spent = on_spent
        self._spent = False
        self._percent = percent
        self._burst = burst * 100
        self._credit: float = min(start, burst) * 100
        self._calls = 0
        self.taken = 0
        """Extra calls made."""
        self.overflow = 0
        """Extra calls refused."""

    def take(self, calls: int) -> bool:
        """Make an extra call, if it may be, after so many calls in all."""
        self._credit = min(self._burst, self._credit + (calls - self._calls) * self._percent)
        self._calls = calls
        if self._credit >= 100:
            self._credit -= 100
            self.taken += 1
            self._spent = False
            return True
        self.overflow += 1
        if not self._spent:
            self._spent = True
            self._on_spent()
        return False
