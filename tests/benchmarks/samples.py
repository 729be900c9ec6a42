"""Readings and summaries for the tests of the reports."""

from benchmarks.measurement import Figures, Reading, Summary
from benchmarks.wrk import Load


def load(requests: int = 1000, *, p50_ms: float = 1.0, errors: int = 0, wrong: int = 0) -> Load:
    return Load(requests=requests, seconds=1.0, p50_ms=p50_ms, p99_ms=2 * p50_ms, errors=errors, wrong=wrong)


def reading(connections: int = 1, cpu_us: float = 10.0, requests: int = 1000, wrong: int = 0) -> Reading:
    return Reading("bare", connections, load(requests, wrong=wrong), cpu_us)


def summary(title: str, requests_per_second: float, cpu_us: float = 100.0, **memory_mb: float) -> Summary:
    """The same figures at 1, 32 and 128 connections."""
    figures = Figures(requests_per_second, p50_ms=0.5, p99_ms=1.5, cpu_us=cpu_us, errors=0, wrong=0)
    return Summary(title, "", {1: figures, 32: figures, 128: figures}, memory_mb)
