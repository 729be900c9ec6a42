"""How many requests a version gets at a time, and who waits meanwhile."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from nstarx.spec.bounds import Percent, Span
from nstarx.spec.model import Count
from nstarx.spec.record import Record

Level = Annotated[int, Field(ge=1, le=16)]
Size = Annotated[int, Field(ge=0, le=1_000_000)]


class MinRttSpec(Record):
    """How the latency of a version at rest is measured: for a moment, few requests are let through at a time."""

    interval_s: Span = 60.0
    """Seconds between two measurements."""
    jitter_percent: Percent = 15.0
    """Up to so much later, by chance, so that gateways don't measure together."""
    request_count: Count = 50
    """Answers that one measurement takes; 10 are enough where they take more than a twentieth of `interval_s`."""
    buffer_percent: Annotated[float, Field(ge=0, le=1000, strict=False)] = 25.0
    """Slower than at rest by so much is still as good as at rest. Raise it for models that gain from large batches."""


class QueueSpec(Record):
    """Requests that wait for their turn. The highest priority goes first, and in it who came first."""

    max_queue_size: Size = 100
    """Requests that may wait; when there are more, the lowest priority is answered 503. 0 lets nobody wait."""
    priority_levels: Level = 1
    """1 is the highest priority, this number the lowest."""
    default_priority_level: Level = 1
    """Of requests without a priority, with 0, or with one that does not exist. (Triton's rule.)"""
    level_queue_size: dict[Annotated[Level, Field(strict=False)], Size] = {}
    """Requests of one level that may wait, where it is fewer."""

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        given = {"default_priority_level": [self.default_priority_level], "level_queue_size": [*self.level_queue_size]}
        for field, levels in given.items():
            if max(levels, default=0) > self.priority_levels:
                raise ValueError(f"{field}: there is no level {max(levels)}; priority_levels is {self.priority_levels}")
        return self


class AdmissionSpec(Record):
    """A limit on the requests under way in one version, from one gateway, that follows its latency.

    The words are those of Envoy's adaptive concurrency, gradient controller.
    """

    min_concurrency: Count = 3
    """The limit at the least, and while latency at rest is measured. Set it to replicas times batch size."""
    max_concurrency_limit: Count = 1000
    """The limit at the most."""
    update_interval_s: Span = 0.1
    """Seconds over which latency is sampled before the limit changes; longer while there are fewer than 10 answers."""
    sample_percentile: Annotated[float, Field(gt=0, lt=100, strict=False)] = 50.0
    """Which latency of an interval is compared with the one at rest."""
    min_rtt: MinRttSpec = MinRttSpec()
    queue: QueueSpec = QueueSpec()

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.min_concurrency > self.max_concurrency_limit:
            raise ValueError("min_concurrency: must not be above max_concurrency_limit")
        return self
