"""How a version's requests are spread over its replicas, and when a replica is taken out. Words as in Envoy."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nstarx.spec.bounds import Delay, Percent, Span
from nstarx.spec.key import KeySpec
from nstarx.spec.model import Count
from nstarx.spec.record import Record

Run = Annotated[int, Field(ge=0, le=1_000_000)]


class SuccessRateSpec(Record):
    """Ejects a replica whose success rate is far below the others', judged over each whole `interval_s`."""

    minimum_hosts: Count = 5
    """Replicas with enough requests, below which nobody is compared."""
    request_volume: Count = 100
    """Requests that a replica must have had in the interval to be compared."""
    stdev_factor: Annotated[float, Field(gt=0, le=100, strict=False)] = 1.9
    """Standard deviations below the mean of all that make an outlier."""
    min_gap_percent: Percent = 5.0
    """Points below the mean that a rate must be as well: where all do well, 1.9 deviations are nothing."""


class LatencyOutlierSpec(Record):
    """Ejects a replica whose median latency is a multiple of the others' and stays so."""

    factor: Annotated[float, Field(gt=1, le=1000, strict=False)] = 3.0
    """Multiple of the median of the other replicas' median latencies that makes an outlier."""
    min_requests: Count = 50
    """Answers that a replica must have given since it joined or returned, to be compared."""
    min_gap_s: Delay = 0.001
    """Seconds above the others that the latency must be as well."""
    consecutive_sweeps: Annotated[int, Field(ge=1, le=3600)] = 3
    """Sweeps (one a second) in a row that must find it so: one pause of a replica is no reason."""


class EjectionSpec(Record):
    """When a sick replica gets no more requests, and for how long. Each gateway judges by what it sees itself."""

    consecutive_failures: Run = 5
    """Failed answers in a row; 0 turns the rule off."""
    consecutive_gateway_failures: Run = 0
    """Answers in a row that were 502, 503 or 504 or never came; 0 turns the rule off."""
    success_rate: SuccessRateSpec | None = SuccessRateSpec()
    """Null turns the rule off."""
    latency_outlier: LatencyOutlierSpec | None = LatencyOutlierSpec()
    """Null turns the rule off."""
    interval_s: Span = 10.0
    """Seconds over which success rates are judged; a replica that stays in for one is forgiven one ejection."""
    base_ejection_time_s: Span = 30.0
    """Seconds out, times the number of ejections not forgiven."""
    max_ejection_time_s: Span = 300.0
    """Seconds out at the most, or the base time where that is larger."""
    max_ejection_percent: Percent = 10.0
    """Share of a version's replicas that may be out at a time."""
    always_eject_one_host: bool = True
    """One may be out whatever the share says, when there are others: 10 % of three replicas would be nobody."""
    enforce: bool = True
    """False reports what would be ejected, and ejects nobody."""


class BalancingSpec(Record):
    """How a version's requests are spread over its replicas."""

    policy: Literal["least_request", "ring_hash"] = "least_request"
    """least_request: the less loaded of two replicas. ring_hash: requests of one key go to one replica."""
    key: KeySpec | None = None
    """Whose requests go together; null is the key that the route's split is sticky by. Requests without a key go to
    the less loaded of two."""
    hash_balance_factor: Annotated[int, Field(ge=100, le=10_000)] | None = 125
    """Per cent of the mean load at which a key's replica passes it on to the next of the ring; null never does."""
    slow_start_s: Delay = 0.0
    """Seconds in which the share of a new or returned replica grows to a full one; 0 gives it all at once."""
    aggression: Annotated[float, Field(gt=0, le=100, strict=False)] = 1.0
    """1 grows the share linearly; above 1 faster at first, below 1 slower."""
    min_weight_percent: Annotated[float, Field(ge=2, le=100, strict=False)] = 10.0
    """Share of a full one that slow start begins with."""
    latency_bias: Annotated[float, Field(ge=0, le=4, strict=False)] = 2.0
    """A replica n times as slow as the others, n at least 2, gets a full share over n to this power; 0 ignores it."""
    panic_threshold_percent: Percent = 50.0
    """Share of replicas not ejected below which ejections are ignored, so that the rest is not overrun; 0 never."""
    ejection: EjectionSpec | None = EjectionSpec()
    """Null ejects nobody."""

    @model_validator(mode="after")
    def _key_is_used(self) -> Self:
        if self.policy != "ring_hash" and self.key is not None:
            raise ValueError("key: means nothing without policy ring_hash")
        return self
