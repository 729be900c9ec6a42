"""Shadows: a version that gets copies of a route's requests, answers nobody, and is compared with the primary."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from nstarx.spec.key import KeySpec
from nstarx.spec.record import Record
from nstarx.spec.version import Ref

Bound = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]
Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False, strict=False)]

FLOAT_TOLERANCE = 1e-4
"""Absolute and relative, where a floating-point output is given neither; the same as of golden examples."""
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
"""A header's name (RFC 9110, 5.6.2)."""


def _header(name: str) -> str:
    if not TOKEN.match(name):
        raise ValueError(f"'{name}' is not the name of a header")
    return name.lower()


Header = Annotated[str, AfterValidator(_header)]


class ToleranceSpec(Record):
    """How far one output of the shadow may be from the primary's and still count as equal.

    An element is equal when either bound holds, as in PEP 485: |a - b| is at most `max_absolute`, or at most
    `max_relative` times the larger of |a| and |b|. Two NaN are equal.
    """

    max_absolute: Bound | None = None
    """Largest absolute difference. Left out: 0 beside a `max_relative`; else 1e-4 for floating point, 0 for others."""
    max_relative: Bound | None = None
    """Largest difference as a part of the larger magnitude. Left out: as `max_absolute`."""
    classes: bool = False
    """The output says a class: a label, or floating-point scores whose greatest along the last dimension counts."""
    ignore: bool = False
    """The output is not compared, and may be missing."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (self.max_absolute is not None or self.max_relative is not None) + self.classes + self.ignore
        if ways > 1:
            raise ValueError("give one of: bounds (max_absolute, max_relative), classes, ignore")
        return self

    def bounds(self, floating: bool) -> tuple[float, float]:
        """(max_absolute, max_relative) for an output of floating point, or of another datatype."""
        if self.max_absolute is None and self.max_relative is None:
            return (FLOAT_TOLERANCE, FLOAT_TOLERANCE) if floating else (0.0, 0.0)
        return self.max_absolute or 0.0, self.max_relative or 0.0


class ReadySpec(Record):
    """What a shadow must show before the report calls it ready to be a canary.

    Rates are held against the far end of their 95 % interval: a rate that may be on either side is not decided. No
    number of requests shows a rate of 0, so no limit may be 0.
    """

    min_compared: Annotated[int, Field(ge=1)] = 1000
    """Pairs that say something: both answers compared, or answered by the primary alone."""
    max_mismatch_percent: Percent = 1.0
    """Of the compared pairs, those with an output beyond its tolerance."""
    max_error_percent: Percent = 1.0
    """Of the requests that the primary answered, those that the shadow failed."""
    max_latency_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = 1.5
    """The shadow's p99 divided by the primary's, over the same requests; null asks for nothing."""


class ShadowSpec(Record):
    """One shadow of a route."""

    version: Ref
    """The version that gets the copies, `model@version`."""
    percent: Percent = 100.0
    """Share of the route's requests that is copied."""
    key: KeySpec | None = None
    """The same key is always copied, or never; raising `percent` only adds keys. Without it, and for requests that have
    none, requests are counted out one by one."""
    timeout_s: Annotated[float, Field(gt=0, le=86400, strict=False)] | None = None
    """Time to the shadow's answer, which counts as failed (504) after it. Left out: what the client's request had."""
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Copies under way in one gateway, a budget of the shadow's own; a request above it is not copied, but counted."""
    compare: bool = True
    """False: answers are counted and timed, but not compared."""
    tolerances: dict[str, ToleranceSpec] = {}
    """Output to its tolerance."""
    tolerance: ToleranceSpec = ToleranceSpec()
    """For outputs that `tolerances` doesn't name."""
    examples: Annotated[int, Field(ge=0, le=100)] = 10
    """How many of the most different requests are kept as examples."""
    keep_payloads: bool = False
    """Whether examples hold the tensors of request and answers; else only ids, statuses and differences."""
    redact: tuple[str, ...] = Field(default=(), strict=False)
    """Tensors, usually inputs, whose elements are left out of kept payloads."""
    attributes: tuple[Header, ...] = Field(default=(), max_length=8, strict=False)
    """Request headers by whose values the report is broken down; names are kept in lower case."""
    ready: ReadySpec = ReadySpec()
    """When the report says `ready`."""

    @field_validator("attributes")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named more than once")
        return names

    def tolerance_of(self, output: str) -> ToleranceSpec:
        """The tolerance of an output, by name."""
        return self.tolerances.get(output, self.tolerance)
