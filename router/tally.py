"""What a gateway counts: one tally for each route, version and role, in plain numbers read when somebody asks."""

from typing import Any

from nstarx.histogram import BUCKETS, bucket_of


class Tally:
    """Outcomes of the calls that one version answered for one route in one role.

    Error windows are differences between two readings, so counting costs the request nothing more.
    """

    __slots__ = (
        "codes", "excused", "failing", "hedges", "hedges_refused", "hedges_won", "invalid", "latency", "latency_ns",
        "lost", "ref", "rescued", "retries", "retries_refused", "role", "route", "spared", "started",
    )  # fmt: skip

    def __init__(self, route: str, ref: str, role: str) -> None:
        self.route = route
        self.ref = ref
        self.role = role
        self.started = 0
        """Calls begun; what is in flight is this less the sum of `codes`."""
        self.retries = 0
        self.retries_refused = 0
        """Retries that the budget had no room for."""
        self.hedges = 0
        """Further replicas asked beside the first, because that took long."""
        self.hedges_won = 0
        """Of these, those that answered first."""
        self.hedges_refused = 0
        """Those that the budget had no room for."""
        self.codes: dict[int, int] = {}
        """HTTP status to calls that ended with it; 499 is a client that went away."""
        self.invalid = 0
        """Of the calls that ended with 200, those whose outputs were invalid."""
        self.lost = 0
        """Replicas that died with calls in hand: one failure each, however many calls."""
        self.rescued = 0
        """Calls whose failure the client never saw, because another version answered."""
        self.spared: dict[int, int] = {}
        """Failed calls that are not held against the version, by status or INVALID_OUTPUT: those that another version
        is answering, and `excused` ones."""
        self.excused = 0
        """Failed calls at which the version that was to answer instead failed too."""
        self.failing: list[str] = []
        """Request ids of the latest failed calls."""
        self.latency = [0] * BUCKETS
        self.latency_ns = 0

    def ended(self, status: int, nanoseconds: int) -> None:
        """Count a call that has ended."""
        self.codes[status] = self.codes.get(status, 0) + 1
        self.latency[bucket_of(nanoseconds)] += 1
        self.latency_ns += nanoseconds

    def reading(self) -> dict[str, Any]:
        """A copy for the wire."""
        return {name: _copied(getattr(self, name)) for name in self.__slots__}


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value
