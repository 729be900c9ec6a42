"""How one replica does, in integers that every answer may afford to update."""

from enum import Enum, auto

STEP = 4
"""Each answer moves the estimate of the median by 1/16: right within some 15 %, tenfold slowness seen after 20."""


class Failure(Enum):
    """What went wrong. An answer "no room" is neither: it speaks of load, not of the replica."""

    ERROR = auto()
    """The replica answered with an error that is its own fault."""
    GATEWAY = auto()
    """502, 503 or 504, or no answer: connection lost, or too late."""


class Health:
    """One replica's record, as one gateway sees it."""

    __slots__ = (
        "calls", "consecutive", "consecutive_gateway", "ejected_until", "ejections", "failures", "median_ns", "replica",
        "reported_until", "seen", "since", "since_calls", "slow_sweeps", "window_calls", "window_failures",
    )  # fmt: skip

    def __init__(self, replica: str, now: float) -> None:
        self.replica = replica
        self.calls = 0
        self.failures = 0
        self.ejections = 0
        """Ejections not yet forgiven."""
        self.ejected_until = 0.0
        """Seconds on the caller's clock; 0 while it takes requests."""
        self.reported_until = 0.0
        """Until when it would be out if ejections were enforced: it is not reported again before."""
        self.begin(now)
        self.next_window()

    def begin(self, now: float) -> None:
        """It joins or returns: nothing from before speaks against it."""
        self.since = now
        self.since_calls = self.seen = self.calls
        self.consecutive = self.consecutive_gateway = self.slow_sweeps = 0
        """Failures in a row, those of the gateway kind, and sweeps in a row that found it slow."""
        self.median_ns = 0
        self.ejected_until = 0.0

    def next_window(self) -> None:
        """Success rates are counted anew from here."""
        self.window_calls, self.window_failures = self.calls, self.failures

    def succeeded(self, ns: int) -> None:
        """A good answer after so many nanoseconds.

        The median is estimated by steps up or down, so that one long pause moves it no further than any other long
        answer. (Frugal streaming: Ma, Muthukrishnan and Sandler 2013; steps here are relative.)
        """
        self.calls += 1
        self.consecutive = 0
        median = self.median_ns or ns
        self.median_ns = median + (median >> STEP) if ns > median else median - (median >> STEP)

    def outlasted(self, ns: int) -> None:
        """A call was withdrawn after so long: its answer would have taken longer. It is no failure, and no success."""
        self.calls += 1
        if ns > self.median_ns:
            self.median_ns = self.median_ns + (self.median_ns >> STEP) or ns

    def failed(self, kind: Failure) -> None:
        """A failure. How long it took says nothing."""
        # A success resets one run alone: it happens more often than the first failure after it.
        gateway_run = self.consecutive_gateway if self.consecutive else 0
        self.consecutive_gateway = gateway_run + 1 if kind is Failure.GATEWAY else 0
        self.consecutive += 1
        self.calls += 1
        self.failures += 1
