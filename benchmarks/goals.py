"""What this gateway is to reach, as ratios within one run, so that they hold on slow machines and fast ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from benchmarks.measurement import Summary

OURS = "nstarx"
Summaries = Mapping[str, Summary]


class Goal(Protocol):
    """A figure with a bound."""

    @property
    def title(self) -> str: ...
    @property
    def bound(self) -> float: ...
    @property
    def at_least(self) -> bool: ...
    @property
    def unit(self) -> str: ...

    def value(self, summaries: Summaries) -> float | None:
        """The measured value; None when the run lacks a contender or a load that it needs."""


@dataclass(frozen=True)
class Ratio:
    """One of our figures divided by the same figure of another contender."""

    title: str
    figure: str
    """A field of Figures."""
    connections: int
    against: str
    bound: float
    at_least: bool
    unit: str = "x"

    def value(self, summaries: Summaries) -> float | None:
        ours, theirs = (self._figure(summaries, name) for name in (OURS, self.against))
        return ours / theirs if ours is not None and theirs else None

    def _figure(self, summaries: Summaries, name: str) -> float | None:
        if name not in summaries or self.connections not in summaries[name].figures:
            return None
        value: float = getattr(summaries[name].figures[self.connections], self.figure)
        return value


@dataclass(frozen=True)
class Memory:
    """Resident memory of our gateway, or of the replicas behind it."""

    title: str
    of_gateway: bool
    bound: float
    at_least: bool = False
    unit: str = " MB"

    def value(self, summaries: Summaries) -> float | None:
        sizes = summaries[OURS].memory_mb if OURS in summaries else {}
        found = [size for title, size in sizes.items() if ("gateway" in title.lower()) == self.of_gateway]
        return sum(found) if found else None


def throughput(other: str, against: str, bound: float) -> Ratio:
    return Ratio(f"requests/s at 128 connections, over {other}", "requests_per_second", 128, against, bound, True)


def latency(other: str, against: str, bound: float) -> Ratio:
    return Ratio(f"median latency at 1 connection, over {other}", "p50_ms", 1, against, bound, False)


GOALS: tuple[Goal, ...] = (
    throughput("Ray Serve's default proxy", "serve_default", 120),
    throughput("Ray Serve at its best", "serve_best", 9),
    throughput("the bare process", "bare", 4),
    throughput("mosec with batching", "mosec_batching", 1.3),
    latency("the bare process", "bare", 1.2),
    latency("Ray Serve at its best", "serve_best", 0.6),
    Ratio("CPU per request at 32 connections, over the bare process", "cpu_us", 32, "bare", 0.35, False),
    Memory("memory of the gateway (PSS)", of_gateway=True, bound=120),
    Memory("memory of the iris replica (PSS)", of_gateway=False, bound=160),
)


def met(goal: Goal, value: float) -> bool:
    return value >= goal.bound if goal.at_least else value <= goal.bound
