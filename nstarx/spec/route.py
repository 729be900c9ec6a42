"""Routes: what a client addresses, and the split that answers it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from nstarx.spec.record import Record
from nstarx.spec.version import Name, Ref

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]


class SplitSpec(Record):
    """How a route divides its traffic. Exactly one kind is given."""

    weighted: dict[Ref, Weight] = Field(min_length=1)
    """Version to weight; a version's share is its weight divided by their sum."""

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if not sum(self.weighted.values()) > 0:
            raise ValueError("weighted: at least one weight must be above 0")
        return self


class RouteSpec(Record):
    """Requests for `/v2/models/{model}/infer`, answered by a split."""

    model: Name
    split: SplitSpec
    timeout_s: Annotated[float, Field(gt=0, le=86400, strict=False)] = 30.0
    """Time to the answer when the request names no shorter one."""
    num_retries: Annotated[int, Field(ge=0, le=10)] = 1
    """Further replicas tried when one dies with the request in hand."""
    idempotent: bool = True
    """False: a request that a replica may have begun is never repeated."""


class RoutesDocument(Record):
    """A routes file: `nstarx routes apply FILE`."""

    routes: tuple[RouteSpec, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_route_a_model(self) -> Self:
        models = [route.model for route in self.routes]
        twice = sorted({model for model in models if models.count(model) > 1})
        if twice:
            raise ValueError(f"routes: {', '.join(twice)} has more than one route")
        return self
