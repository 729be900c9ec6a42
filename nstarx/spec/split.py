"""Splits: how a route divides its requests among versions."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.key import KeySpec
from nstarx.spec.record import Record
from nstarx.spec.trial import Bound, Trial
from nstarx.spec.version import Name, Ref

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]
Share = Annotated[float, Field(ge=0, le=100, strict=False)]


class CanarySpec(Record):
    """A candidate that gets a part of the requests, beside the stable version that gets the rest."""

    stable: Ref
    """The version that answers for the candidate where that fails, and that it is compared with."""
    candidate: Ref
    """The version on trial."""
    percent: Share
    """The candidate's share of the requests."""

    @model_validator(mode="after")
    def _two_versions(self) -> Self:
        if self.stable == self.candidate:
            raise ValueError("candidate: must be another version than stable")
        return self


class BlueGreenSpec(Record):
    """Two versions, one of which answers everything; the other is kept warm for an instant switch."""

    blue: Ref
    green: Ref
    live: Literal["blue", "green"] = "blue"
    """The side that answers."""

    @model_validator(mode="after")
    def _two_versions(self) -> Self:
        if self.blue == self.green:
            raise ValueError("green: must be another version than blue")
        return self


class SplitSpec(Record):
    """How a route divides its requests. Exactly one kind is given."""

    weighted: dict[Ref, Weight] | None = Field(default=None, min_length=1)
    """Version to weight; a version's share is its weight divided by their sum."""
    canary: CanarySpec | None = None
    """A stable version and a candidate."""
    blue_green: BlueGreenSpec | None = None
    """Two versions, one live."""
    experiment: Name | None = None
    """The experiment whose arms answer while it runs; its control answers everything before and after."""
    sticky: KeySpec | None = None
    """The same key gets the same version, and raising a share only adds keys to it. Requests without a key are
    counted out one by one."""
    _bound: Bound | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; given: {', '.join(given) or 'none'}")
        if self.weighted is not None and not sum(self.weighted.values()) > 0:
            raise ValueError("weighted: at least one weight must be above 0")
        if self.experiment is not None and self.sticky is not None:
            raise ValueError("sticky: an experiment has a key of its own, which keeps callers with their arms")
        return self

    def bound(self, experiments: Mapping[str, ExperimentSpec], trials: Mapping[str, Trial]) -> Self:
        """The same split, knowing what its experiment is and how it stands. Without that it has no versions."""
        if self.experiment is None or self.experiment not in experiments:
            return self
        split = self.model_copy()
        split._bound = Bound(experiments[self.experiment], trials.get(self.experiment))
        return split

    @property
    def trial(self) -> Trial | None:
        """The run of its experiment that assigns callers, if one does."""
        return self._bound.running if self._bound else None

    @property
    def key(self) -> KeySpec | None:
        """What says whose request it is, where that matters now."""
        return self.trial.experiment.key if self.trial else self.sticky

    @property
    def weights(self) -> dict[str, float]:
        """Version to weight, the stable version first."""
        if self.canary:
            return {self.canary.stable: 100 - self.canary.percent, self.canary.candidate: self.canary.percent}
        if self.blue_green:
            sides = {self.blue_green.blue: "blue", self.blue_green.green: "green"}
            return {ref: float(side == self.blue_green.live) for ref, side in sides.items()}
        if self._bound:
            return self._bound.weights
        weights = self.weighted or {}
        return {ref: weights[ref] for ref in sorted(weights, key=lambda ref: -weights[ref])}

    @property
    def stable(self) -> str | None:
        """The version that others are compared with: the declared one, the live one, or the one of most weight.

        None where there is only one.
        """
        if self.canary:
            return self.canary.stable
        if self._bound:
            return self._bound.experiment.control
        weights = self.weights
        return max(weights, key=lambda ref: weights[ref]) if len(weights) > 1 else None

    @property
    def candidates(self) -> tuple[str, ...]:
        """The versions on trial, which the stable one rescues."""
        if self.experiment:
            return tuple(ref for ref in self.weights if ref != self.stable)
        return (self.canary.candidate,) if self.canary else ()

    def role(self, ref: str) -> str:
        """The part that a version plays, as headers and metrics name it."""
        if self.canary:
            return "candidate" if ref == self.canary.candidate else "stable"
        if self.experiment:
            return "control" if ref == self.stable else "arm"
        return "primary"


KINDS = ("weighted", "canary", "blue_green", "experiment")
