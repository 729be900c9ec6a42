"""Which replicas differ from the rest: statistics over their records, pure, run once a second."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median, pstdev
from typing import Literal, NamedTuple

from nstarx.spec.balancing import EjectionSpec, LatencyOutlierSpec, SuccessRateSpec
from router.health import Health

Rule = Literal["consecutive_failures", "consecutive_gateway_failures", "success_rate", "latency_outlier"]


NOTABLY = 2.0
"""Times as slow as the others, below which a difference is left alone: estimates are right within some 15 %."""
ENOUGH = 20
"""Answers after which an estimate means something."""


class Suspicion(NamedTuple):
    """A rule that a replica broke, with the numbers."""

    health: Health
    rule: Rule
    measured: float
    threshold: float
    because: str


def run_of_failures(health: Health, spec: EjectionSpec) -> Suspicion | None:
    """Too many failures in a row; after one that was not acted on, as many again must follow."""
    run, gateway_run = spec.consecutive_failures, spec.consecutive_gateway_failures
    if run and health.consecutive and health.consecutive % run == 0:
        because = f"{health.consecutive} answers in a row failed"
        return Suspicion(health, "consecutive_failures", health.consecutive, run, because)
    if gateway_run and health.consecutive_gateway and health.consecutive_gateway % gateway_run == 0:
        because = f"{health.consecutive_gateway} answers in a row were 502, 503 or 504 or never came"
        return Suspicion(health, "consecutive_gateway_failures", health.consecutive_gateway, gateway_run, because)
    return None


def unsuccessful(healths: Iterable[Health], spec: SuccessRateSpec) -> list[Suspicion]:
    """Those whose success rate in this window is too far below the mean of all that had enough requests."""
    rates = {health: rate for health in healths if (rate := _success_rate(health, spec.request_volume)) is not None}
    if len(rates) < spec.minimum_hosts:
        return []
    mean, deviation = fmean(rates.values()), pstdev(rates.values())
    threshold = min(mean - spec.stdev_factor * deviation, mean - spec.min_gap_percent / 100)
    return [
        Suspicion(
            health, "success_rate", rate, threshold,
            f"{rate:.1%} of its answers were good; the mean of {len(rates)} replicas is {mean:.1%}, "
            f"and below {max(threshold, 0):.1%} is an outlier",
        )
        for health, rate in rates.items()
        if rate < threshold
    ]  # fmt: skip


def _success_rate(health: Health, volume: int) -> float | None:
    calls = health.calls - health.window_calls
    return 1 - (health.failures - health.window_failures) / calls if calls >= volume else None


def slow(healths: Sequence[Health], spec: LatencyOutlierSpec) -> list[Suspicion]:
    """Those whose median latency is too far above the others', at this moment."""
    rated = [h for h in healths if h.median_ns and h.calls - h.since_calls >= spec.min_requests]
    suspicions = (_slower(health, [other for other in rated if other is not health], spec) for health in rated)
    return [suspicion for suspicion in suspicions if suspicion]


def _slower(health: Health, others: list[Health], spec: LatencyOutlierSpec) -> Suspicion | None:
    if not others:
        return None
    usual = median(other.median_ns for other in others) / 1e9
    threshold = max(usual * spec.factor, usual + spec.min_gap_s)
    latency = health.median_ns / 1e9
    if latency <= threshold:
        return None
    because = (
        f"its median latency is {latency * 1e3:.1f} ms; the other {len(others)} have {usual * 1e3:.1f} ms, "
        f"and above {threshold * 1e3:.1f} ms is an outlier"
    )
    return Suspicion(health, "latency_outlier", latency, threshold, because)


def slowness(healths: Sequence[Health]) -> dict[str, float]:
    """Those at least NOTABLY as slow as the others, and how many times as slow, by median latencies."""
    rated = [health for health in healths if health.median_ns and health.calls - health.since_calls >= ENOUGH]
    found = {}
    for health in rated:
        others = [other.median_ns for other in rated if other is not health]
        if others and (times := health.median_ns / median(others)) >= NOTABLY:
            found[health.replica] = times
    return found
