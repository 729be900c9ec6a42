"""What a shadow's tally means: rates with their intervals, and whether the version is ready to be a canary.

The verdict holds each limit against the end of a 95 % interval, never against the estimate: `ready` when even the worse
end keeps every limit, `not_ready` when even the better end breaks one, else `not_enough_data`.
"""

from collections.abc import Callable
from operator import sub, truediv
from typing import Any, Literal, NamedTuple

from pydantic import Field

from judging.comparison import Outcome
from judging.intervals import latency_quantile, share
from judging.shadow_tally import OutputTally, ShadowTally, Slice
from nstarx.histogram import quantile
from nstarx.spec.record import Record
from nstarx.spec.shadow import ReadySpec, ShadowSpec

MAX_CONFUSIONS = 20
"""Pairs of classes in a report, the most frequent ones."""

Verdict = Literal["ready", "not_ready", "not_enough_data"]


class Rate(Record):
    """A share of a number of requests, with its 95 % score interval (Wilson 1927), in percent."""

    count: int
    of: int
    percent: float | None
    """null without data."""
    low: float
    high: float


class LatencyReport(Record):
    """Latency of both sides over the pairs that both answered, in seconds; null without data."""

    primary_p50_s: float | None
    primary_p99_s: float | None
    shadow_p50_s: float | None
    shadow_p99_s: float | None
    p50_difference_s: float | None
    """The shadow's minus the primary's."""
    p99_difference_s: float | None
    p99_ratio: float | None
    """The shadow's divided by the primary's."""
    p99_ratio_low: float | None
    """Both ends of the ratio from the 95 % intervals of both quantiles, so it misses in less than 10 % of cases."""
    p99_ratio_high: float | None


class ConfusionReport(Record):
    """Rows in which both sides named different classes."""

    primary: str
    shadow: str
    rows: int


class OutputReport(Record):
    """One output over the compared pairs; pairs in which it was identical differ by 0."""

    output: str
    mismatch: Rate
    kinds: dict[str, int]
    """How it differed (`judging.comparison.Kind`) to mismatches."""
    max_absolute: float
    mean_absolute: float
    max_relative: float
    mean_relative: float
    not_finite: int
    """Pairs with a NaN or an infinity on one side alone; no part of the four numbers before."""
    confusion: tuple[ConfusionReport, ...] = Field(strict=False)
    """The most frequent first."""


class SliceReport(Record):
    """Requests with one value of an attribute."""

    attribute: str
    value: str
    mismatch: Rate
    errors: Rate


class ShadowReport(Record):
    """`nstarx shadow report`."""

    version: str
    verdict: Verdict
    sentence: str
    """Why; it names the first limit that is broken, or not yet shown to be kept."""
    sampled: int
    """Requests chosen to be copied."""
    dropped: int
    """Of those, never sent."""
    drops: dict[str, int]
    """Why they were not sent (`judging.shadow_tally.Drop`) to requests."""
    refused: int
    """Of those, not taken by the shadow's replicas for lack of capacity."""
    not_compared: int
    """Answered by both sides, and not compared."""
    both_failed: int
    """Answered by neither side; they count against nobody."""
    primary_failed: int
    """Answered by the shadow alone."""
    rescued: int
    """Pairs in which the client got another version's answer than that of the one asked first, which had failed. The
    shadow's was compared with what the client got."""
    mismatch: Rate
    """Of the compared pairs, those with an output beyond its tolerance."""
    errors: Rate
    """Of the requests that the primary answered, those that the shadow failed."""
    primary_statuses: dict[str, int]
    """Status to answers, from 400 on."""
    shadow_statuses: dict[str, int]
    latency: LatencyReport
    outputs: tuple[OutputReport, ...] = Field(strict=False)
    """Outputs that were not always identical, the most often mismatched first."""
    slices: tuple[SliceReport, ...] = Field(strict=False)
    """The surely worst first: by the lower end of mismatches, then of errors."""
    examples: tuple[dict[str, Any], ...] = Field(strict=False)
    """The most different of the compared requests, those first."""
    failures: tuple[dict[str, Any], ...] = Field(strict=False)
    """The first requests that the shadow failed."""


class Check(NamedTuple):
    """One limit: kept, broken, or (None) not decided."""

    kept: bool | None
    sentence: str


def report(tally: ShadowTally, spec: ShadowSpec) -> ShadowReport:
    """What a tally means by a shadow's settings."""
    answered = tally.of(Outcome.compared, Outcome.answered, Outcome.shadow_failed)
    mismatch = rate(tally.mismatched, tally.of(Outcome.compared))
    errors = rate(tally.of(Outcome.shadow_failed), answered)
    latency = _latency(tally)
    verdict, sentence = _verdict(_checks(mismatch, errors, latency, spec))
    return ShadowReport(
        version=spec.version,
        verdict=verdict,
        sentence=sentence,
        sampled=tally.sampled,
        dropped=tally.dropped,
        drops=tally.drops,
        refused=tally.of(Outcome.refused),
        not_compared=tally.of(Outcome.answered),
        both_failed=tally.of(Outcome.both_failed),
        primary_failed=tally.of(Outcome.primary_failed),
        rescued=tally.rescued,
        mismatch=mismatch,
        errors=errors,
        primary_statuses=tally.primary_statuses,
        shadow_statuses=tally.shadow_statuses,
        latency=latency,
        outputs=_outputs(tally, mismatch.of),
        slices=_slices(tally),
        examples=tuple(tally.examples),
        failures=tuple(tally.failures),
    )


def rate(count: int, of: int) -> Rate:
    """A share with its interval."""
    low, high = share(count, of)
    return Rate(count=count, of=of, percent=100 * count / of if of else None, low=100 * low, high=100 * high)


def _checks(mismatch: Rate, errors: Rate, latency: LatencyReport, spec: ShadowSpec) -> list[Check]:
    ready = spec.ready
    checks = [_enough(mismatch.of + errors.count if spec.compare else errors.of, ready)]
    if spec.compare:
        checks.append(_rate_kept("mismatches", mismatch, "max_mismatch_percent", ready.max_mismatch_percent))
    checks.append(_rate_kept("errors", errors, "max_error_percent", ready.max_error_percent))
    if ready.max_latency_ratio is not None:
        checks.append(_ratio_kept(latency, ready.max_latency_ratio))
    return checks


def _verdict(checks: list[Check]) -> tuple[Verdict, str]:
    enough, *limits = checks
    if enough.kept is None:
        return "not_enough_data", f"Not enough data: {enough.sentence}."
    for check in limits:
        if check.kept is False:
            return "not_ready", f"Not ready: {check.sentence}."
    for check in limits:
        if check.kept is None:
            return "not_enough_data", f"Not enough data: {check.sentence}."
    return "ready", f"Ready to be a canary: {'; '.join([check.sentence for check in limits])}."


def _enough(pairs: int, ready: ReadySpec) -> Check:
    sentence = f"{pairs} pairs say something, and min_compared asks for {ready.min_compared}"
    return Check(True if pairs >= ready.min_compared else None, sentence)


def _rate_kept(what: str, found: Rate, name: str, limit: float) -> Check:
    if not found.of:
        return Check(None, f"no pair can show {what} yet")
    seen = f"{found.percent:.3g} % {what} in {found.of} (95 % interval {found.low:.3g} to {found.high:.3g} %)"
    return _kept(seen, found.low, found.high, name, limit, "%")


def _ratio_kept(latency: LatencyReport, limit: float) -> Check:
    ratio, low, high = latency.p99_ratio, latency.p99_ratio_low, latency.p99_ratio_high
    if ratio is None or low is None or high is None:
        return Check(None, "too few pairs that both answered to tell the p99 of their latencies")
    seen = f"p99 latency {ratio:.3g} times the primary's (interval {low:.3g} to {high:.3g})"
    return _kept(seen, low, high, "max_latency_ratio", limit, "")


def _kept(seen: str, low: float, high: float, name: str, limit: float, unit: str) -> Check:
    bound = f"{name} {limit:g} {unit}".rstrip()
    if high <= limit:
        return Check(True, f"{seen} within {bound}")
    if low > limit:
        return Check(False, f"{seen} break {bound}")
    return Check(None, f"{seen} may be on either side of {bound}")


def _latency(tally: ShadowTally) -> LatencyReport:
    primary, shadow = tally.primary_latency, tally.shadow_latency
    p50, p99 = quantile(primary, 0.5), quantile(primary, 0.99)
    shadow_p50, shadow_p99 = quantile(shadow, 0.5), quantile(shadow, 0.99)
    around, shadow_around = latency_quantile(primary, 0.99), latency_quantile(shadow, 0.99)
    return LatencyReport(
        primary_p50_s=p50,
        primary_p99_s=p99,
        shadow_p50_s=shadow_p50,
        shadow_p99_s=shadow_p99,
        p50_difference_s=_either(shadow_p50, p50, sub),
        p99_difference_s=_either(shadow_p99, p99, sub),
        p99_ratio=_either(shadow_p99, p99, truediv),
        p99_ratio_low=shadow_around[0] / around[1] if around and shadow_around else None,
        p99_ratio_high=shadow_around[1] / around[0] if around and shadow_around else None,
    )


def _outputs(tally: ShadowTally, compared: int) -> tuple[OutputReport, ...]:
    reports = [_output(name, output, compared) for name, output in tally.outputs.items()]
    return tuple(sorted(reports, key=lambda output: (-output.mismatch.count, output.output)))


def _output(name: str, tally: OutputTally, compared: int) -> OutputReport:
    return OutputReport(
        output=name,
        mismatch=rate(tally.mismatches, compared),
        kinds=tally.kinds,
        max_absolute=tally.max_absolute,
        mean_absolute=tally.sum_absolute / compared,
        max_relative=tally.max_relative,
        mean_relative=tally.sum_relative / compared,
        not_finite=tally.not_finite,
        confusion=_confusion(tally.confusion),
    )


def _confusion(counts: dict[str, dict[str, int]]) -> tuple[ConfusionReport, ...]:
    pairs = [
        ConfusionReport(primary=primary, shadow=shadow, rows=rows)
        for primary, row in counts.items()
        for shadow, rows in row.items()
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.rows, pair.primary, pair.shadow))[:MAX_CONFUSIONS])


def _slices(tally: ShadowTally) -> tuple[SliceReport, ...]:
    reports = [
        _slice(attribute, value, counts)
        for attribute, values in tally.slices.items()
        for value, counts in values.items()
    ]
    return tuple(sorted(reports, key=lambda s: (-s.mismatch.low, -s.errors.low, s.attribute, s.value)))


def _slice(attribute: str, value: str, counts: Slice) -> SliceReport:
    answered, failed, compared, mismatched = counts
    return SliceReport(
        attribute=attribute, value=value, mismatch=rate(mismatched, compared), errors=rate(failed, answered)
    )


def _either(a: float | None, b: float | None, of: Callable[[float, float], float]) -> float | None:
    return None if a is None or b is None else of(a, b)
