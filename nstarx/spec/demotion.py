"""When a version is taken out of traffic by itself, and how it comes back. Words and defaults as Envoy and Flagger
have them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from nstarx.spec.record import Record

Rate = Annotated[float, Field(gt=0, lt=1, strict=False)]
"""A share of calls, above 0 and below 1."""
Seconds = Annotated[float, Field(gt=0, le=86400, strict=False)]
Percent = Annotated[float, Field(gt=0, le=100, strict=False)]
Milliseconds = Annotated[float, Field(gt=0, le=86_400_000, strict=False)]


class MinEffect(Record):
    """How much worse than the stable version counts: error rates up to `ratio` x stable's + `floor` are no reason."""

    ratio: Annotated[float, Field(ge=1, le=100, strict=False)] = 1.5
    """Failures for each of the stable version's that are borne."""
    floor: Rate = 0.002
    """Failing share that is borne on top, so that one failure beside a stable version without any is no reason."""


class DemotionSpec(Record):
    """When a version is demoted, on what evidence, for how long, and how it comes back."""

    enforce: bool = True
    """False: verdicts are reported, and nothing is demoted."""
    false_alarm: Annotated[float, Field(gt=0, le=0.1, strict=False)] = 0.001
    """Bound on the chance that a version within its limits is demoted during one million of its calls."""
    min_requests: Annotated[int, Field(ge=1)] = 50
    """Calls of the version before its error rate or latency counts; `consecutive_failures` does not wait for them."""
    consecutive_failures: Annotated[int, Field(ge=0)] = 5
    """Failures in a row that demote; more are wanted where the stable version itself fails so often that these few
    prove nothing. 0 is off."""
    max_error_rate: Rate | None = 0.05
    """Failing share that is borne, whatever the stable version does; as long as the stable version is over it too, only
    `min_effect` counts."""
    min_effect: MinEffect | None = MinEffect()
    """Comparison with the stable version over the same time; None is off."""
    max_timeout_rate: Rate | None = None
    """Share of timeouts that is borne; they count among the failures in any case."""
    max_invalid_rate: Rate | None = None
    """Share of invalid outputs (NaN, infinities, wrong shape) that is borne; they count among the failures in any
    case."""
    max_p99_ms: Milliseconds | None = None
    """99th percentile of the latency that is borne, in milliseconds."""
    max_p99_ratio: Annotated[float, Field(ge=1, le=1000, strict=False)] | None = None
    """99th percentile of the latency that is borne, as a multiple of the stable version's over the same time."""
    interval_s: Seconds = 10.0
    """Window over which latency is judged, and calls are counted for `min_requests`; longer while traffic is thin."""
    max_demoted_percent: Percent = 100.0
    """Share of a route's traffic that may be demoted at once. The last healthy version stays in any case."""
    demotion_time_s: Seconds = 30.0
    """Time out of traffic, times the number of demotions so far."""
    max_demotion_time_s: Seconds = 300.0
    """Longest time out of traffic."""
    probation_percent: Percent = 1.0
    """Share of its weight that a version gets first when it comes back."""
    probation_step_s: Seconds = 30.0
    """Time after which the share doubles, if the version had calls enough and nothing was wrong with them."""
    max_demotions: Annotated[int, Field(ge=1)] = 3
    """The demotion that is the last: the version is given up until a person undoes it."""
    forget_after_s: Seconds = 3600.0
    """Time in good health after which earlier demotions no longer count."""
    grace_s: Annotated[float, Field(ge=0, le=86400, strict=False)] = 60.0
    """Time after a person's undo in which verdicts are reported only."""

    @model_validator(mode="after")
    def _back_off_grows(self) -> Self:
        if self.max_demotion_time_s < self.demotion_time_s:
            raise ValueError("max_demotion_time_s: must be at least demotion_time_s")
        return self
