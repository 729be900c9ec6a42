"""One measurement of a running server, and the medians of many."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import processes, wrk
from benchmarks.contenders import Server
from benchmarks.wrk import Load

WARM_UP_SHARE = 5
"""The warm-up takes a fifth of the measurement's time, and a second at the least."""


@dataclass(frozen=True)
class Reading:
    """One contender under one load."""

    contender: str
    connections: int
    load: Load
    cpu_us: float
    """User and system time per request, in microseconds, of the processes that requests pass through."""


@dataclass(frozen=True)
class Figures:
    """Medians over the repetitions; errors and wrong answers are added up."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int
    wrong: int


@dataclass(frozen=True)
class Summary:
    """What is reported about one contender."""

    title: str
    note: str
    figures: dict[int, Figures]
    """By number of connections."""
    memory_mb: dict[str, float]
    """Proportional set size after the load, by process title."""


def measure(server: Server, connections: int, seconds: int) -> Reading:
    """Warm up at the same load, then measure it together with the CPU time it takes."""
    wrk.run(server.url, connections, max(1, seconds // WARM_UP_SHARE))
    pids = [process.pid for process in server.processes()]
    before = processes.total_cpu_seconds(pids)
    load = wrk.run(server.url, connections, seconds)
    spent = processes.total_cpu_seconds(pids) - before
    return Reading(server.contender.name, connections, load, cpu_us=spent / max(1, load.requests) * 1e6)


def memory_mb(server: Server) -> dict[str, float]:
    """Proportional set size by process title; processes of the same title are added up."""
    sizes: defaultdict[str, float] = defaultdict(float)
    for process in server.processes():
        sizes[processes.title(process)] += processes.pss_mb(process.pid)
    return dict(sizes)


def figures(readings: Iterable[Reading]) -> dict[int, Figures]:
    """Medians by number of connections."""
    by_connections: defaultdict[int, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_connections[reading.connections].append(reading)
    return {connections: medians(found) for connections, found in sorted(by_connections.items())}


def medians(readings: Sequence[Reading]) -> Figures:
    return Figures(
        requests_per_second=median(reading.load.requests_per_second for reading in readings),
        p50_ms=median(reading.load.p50_ms for reading in readings),
        p99_ms=median(reading.load.p99_ms for reading in readings),
        cpu_us=median(reading.cpu_us for reading in readings),
        errors=sum(reading.load.errors for reading in readings),
        wrong=sum(reading.load.wrong for reading in readings),
    )


def median_memory(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    titles = {title: None for sample in samples for title in sample}
    return {title: median(sample[title] for sample in samples if title in sample) for title in titles}
