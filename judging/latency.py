"""Whether a version is slower than it may be: bounds on its 99th percentile that hold beyond doubt."""

from collections.abc import Iterator
from typing import NamedTuple

from judging.quantiles import lower_bound, upper_bound
from judging.readings import Readings, Span
from judging.sequential import threshold
from judging.verdict import Evidence, Figures, Rule
from judging.windows import FIRST, Window
from judging.wording import calls, ms, times
from nstarx.histogram import quantile
from nstarx.spec.demotion import DemotionSpec

Q = 0.99


class Finding(NamedTuple):
    """A rule that is broken."""

    rule: Rule
    span: Span
    lowest_ms: float
    """What the 99th percentile is at least, beyond doubt."""
    limit_ms: float


def latency_evidence(readings: Readings, policy: DemotionSpec, now: float) -> Evidence | None:
    """The first rule about latency that the version has broken over one of the spans, with its numbers."""
    found = next(_findings(readings, policy), None)
    return found and _evidence(found, readings, policy, now)


def _findings(readings: Readings, policy: DemotionSpec) -> Iterator[Finding]:
    """Each judgement may be wrong with a chance in proportion to the calls since the one before, so that all of them
    together stay within this test's part of the false alarms that are borne, however often and over whatever spans
    it is judged."""
    alpha = readings.fresh / threshold(policy) / max(len(readings.spans), 1)
    for span in readings.spans if readings.fresh else ():
        if span.accused.counts.calls >= policy.min_requests:
            yield from _broken(span, alpha, policy)


def _broken(span: Span, alpha: float, policy: DemotionSpec) -> Iterator[Finding]:
    """Calls that wait for one another are slow together, and bounds for independent ones then say too much. So both
    halves of the span have to be slow too: a single pause is no reason."""
    lowest = lower_bound(span.accused.counts.latency, Q, alpha)
    for rule, limit_ms in _limits(span, alpha, policy):
        if lowest and lowest * 1000 > limit_ms and all(_slow(half, limit_ms) for half in span.halves):
            yield Finding(rule, span, lowest * 1000, limit_ms)


def _limits(span: Span, alpha: float, policy: DemotionSpec) -> Iterator[tuple[Rule, float]]:
    """The limits that apply, in milliseconds: not the absolute one while the stable version is over it too, and none
    that is relative while the stable version had too few calls for an upper bound."""
    if policy.max_p99_ms and not _slow(span.stable, policy.max_p99_ms):
        yield "max_p99_ms", policy.max_p99_ms
    highest = upper_bound(span.stable.counts.latency, Q, alpha) if policy.max_p99_ratio else None
    if policy.max_p99_ratio and highest:
        yield "max_p99_ratio", policy.max_p99_ratio * highest * 1000


def _slow(window: Window, limit_ms: float) -> bool:
    p99 = p99_ms(window)
    return p99 is not None and p99 > limit_ms


def p99_ms(window: Window) -> float | None:
    p99 = quantile(window.counts.latency, Q)
    return None if p99 is None else p99 * 1000


def _evidence(found: Finding, readings: Readings, policy: DemotionSpec, now: float) -> Evidence:
    accused = _figures(readings.version, found.span.accused)
    return Evidence(
        rule=found.rule,
        at=now,
        window_s=found.span.accused.seconds,
        accused=accused,
        stable=_figures(readings.stable, found.span.stable) if readings.stable else None,
        statistic=found.lowest_ms,
        threshold=found.limit_ms,
        limit=found.limit_ms,
        first_failing=tuple(call.id for call in found.span.accused.failing[:FIRST]),
        sentence=_sentence(found, accused, readings.stable, policy),
    )


def _figures(version: str, window: Window) -> Figures:
    counts = window.counts
    return Figures(
        version=version,
        calls=counts.calls,
        failures=counts.failures,
        timeouts=counts.timeouts,
        invalid=counts.invalid,
        p99_ms=p99_ms(window),
    )


def _sentence(found: Finding, accused: Figures, stable: str | None, policy: DemotionSpec) -> str:
    seen = (
        f"1 % of {calls(accused.calls)} to {accused.version} in {found.span.accused.seconds:g} s took "
        f"{ms(accused.p99_ms or 0)} or more, and its 99th percentile is at least {ms(found.lowest_ms)} beyond doubt"
    )
    if found.rule == "max_p99_ms":
        return f"{seen}: more than the {ms(found.limit_ms)} that max_p99_ms bears."
    ratio = policy.max_p99_ratio or 1.0
    highest = ms(found.limit_ms / ratio)
    return f"{seen}: more than {times(ratio)} the {highest} that {stable} stayed below in the same time."
