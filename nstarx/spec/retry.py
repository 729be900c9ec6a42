"""When a call is made again, or twice at once, and how often that may be. Words as in Envoy, in snake case."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nstarx.spec.bounds import Percent, Span
from nstarx.spec.record import Record

RetryOn = Literal["reset", "refused", "per_try_timeout", "gateway_error", "server_error"]
Few = Annotated[int, Field(ge=0, le=10)]

GATEWAY_ERRORS = frozenset({502, 503, 504})
SERVER_ERRORS = frozenset(range(500, 600))


class RetrySpec(Record):
    """Further tries of a call, on another replica where there is one, within the call's deadline."""

    num_retries: Few = 1
    """Further tries of one call."""
    budget_percent: Percent = 20.0
    """Retries under way as a share of the requests under way; above it calls fail without a further try."""
    min_retry_concurrency: Annotated[int, Field(ge=0, le=1000)] = 3
    """Retries that may be under way however few the requests."""
    per_try_timeout_s: Span | None = None
    """Seconds for one try; null lets a try take all that the call has left, so that a late one is never repeated."""
    retry_on: tuple[RetryOn, ...] = Field(default=("reset", "refused"), strict=False)
    """reset: the replica died with the call in hand. refused: it had no room and did not begin. per_try_timeout: it
    took too long. gateway_error: it answered 502, 503 or 504. server_error: it answered 5xx."""

    @model_validator(mode="after")
    def _timeout_to_retry_on(self) -> Self:
        if "per_try_timeout" in self.retry_on and self.per_try_timeout_s is None:
            raise ValueError("retry_on: per_try_timeout needs per_try_timeout_s")
        return self

    @property
    def statuses(self) -> frozenset[int]:
        """HTTP statuses of a replica's answer that are tried again."""
        if "server_error" in self.retry_on:
            return SERVER_ERRORS
        return GATEWAY_ERRORS if "gateway_error" in self.retry_on else frozenset()


class HedgeSpec(Record):
    """A second try beside the first when that takes long; the first answer counts, the other call is withdrawn.

    (The Tail at Scale: Dean and Barroso 2013.)
    """

    after_s: Span | None = None
    """Seconds after which the second try starts; null learns them from `after_quantile`."""
    after_quantile: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    """Quantile of the recent latencies after which it starts."""
    max_medians: Annotated[float, Field(ge=1, le=100, strict=False)] | None = 3.0
    """Times the median at which it starts at the latest: where more calls are slow than the quantile leaves out, the
    quantile is a slow call's latency. Null leaves it at the quantile."""
    budget_percent: Percent = 5.0
    """Further tries as a share of the calls; above it calls wait for what they have."""
    max_extra: Annotated[int, Field(ge=1, le=3)] = 1
    """Further tries of one call, each as long after the last."""
