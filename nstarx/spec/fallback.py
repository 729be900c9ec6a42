"""What answers when a version fails, or nothing healthy is left."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from nstarx.spec.bounds import Percent, Span
from nstarx.spec.record import Record
from nstarx.spec.version import Ref


class RescueSpec(Record):
    """A candidate's failed, late or invalid answer is replaced by the stable version's, before the client sees it."""

    enabled: bool = True
    late_after_s: Span | None = None
    """Seconds after which a candidate's answer counts as late; null is half of the time that the request has."""
    budget_percent: Percent = 25.0
    """Rescues as a share of the route's requests, so that the stable version is never overrun; above it the
    candidate's own answer is given."""
    burst: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Rescues that may be made beyond the share at once."""


class StaticAnswer(Record):
    """An answer that is always the same."""

    body: dict[str, Any]
    """The JSON document that clients get."""
    status: Annotated[int, Field(ge=200, le=599)] = 200


class FallbackSpec(Record):
    """What answers a route when none of its versions can. Exactly one is given."""

    version: Ref | None = None
    """Another version."""
    static: StaticAnswer | None = None
    """An answer that the gateway gives by itself."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.version is None) == (self.static is None):
            raise ValueError("give exactly one of version, static")
        return self
