"""Experiments: the arms that are compared, what is measured, and when a difference counts."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nstarx.errors import InvalidRequest
from nstarx.spec.bounds import Percent
from nstarx.spec.key import KeySpec
from nstarx.spec.record import Record
from nstarx.spec.version import Name, VersionRef, valid_name

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]
Number = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
"""A measured value; bounded, so that sums of squares stay finite."""
Size = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class InvalidOutcome(InvalidRequest):
    """A reported outcome names no metric of the experiment, or a value that the metric can't have."""

    code = "invalid_outcome"


def _valid_arm(arm: str) -> str:
    return str(VersionRef.parse(arm)) if "@" in arm else valid_name(arm)


ArmName = Annotated[str, AfterValidator(_valid_arm)]
"""A version (`iris@1.2.0`) or a label."""


class MetricSpec(Record):
    """A number that callers report for an assignment, and which way is good."""

    metric: Name
    """The word that outcomes use for it."""
    kind: Literal["binary", "bounded", "continuous"]
    """`binary` (0 or 1) and `bounded` promise the error rate at any sample size; `continuous` promises it for large
    samples, and decides after less than half as many. Zeros and ones may be declared `continuous` for that reason."""
    direction: Literal["increase", "decrease"]
    """The change that is good."""
    range: tuple[Number, Number] | None = Field(default=None, strict=False)
    """Smallest and largest possible value; for `bounded` metrics, and only for them."""

    @model_validator(mode="after")
    def _bounded_has_bounds(self) -> Self:
        if (self.kind == "bounded") != (self.range is not None):
            raise ValueError("range: give the smallest and largest value of a bounded metric, and of no other")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError("range: the smallest value comes first, the largest second")
        return self

    @property
    def limits(self) -> tuple[float, float] | None:
        """What values can be, or None where there is no bound."""
        return (0.0, 1.0) if self.kind == "binary" else self.range

    def check(self, value: float) -> None:
        """Raises InvalidOutcome when this metric can't have the value."""
        if self.kind == "binary" and value not in (0, 1):
            raise InvalidOutcome(f"metric '{self.metric}' is binary; report 0 or 1, not {value:g}")
        if self.limits and not self.limits[0] <= value <= self.limits[1]:
            raise InvalidOutcome(f"metric '{self.metric}' lies between {self.limits[0]:g} and {self.limits[1]:g}")


class PrimarySpec(MetricSpec):
    """The metric that decides who wins."""

    min_effect: Size = 0.0
    """Differences up to this size, in the metric's unit, count as none; at 0, `no_difference` is never concluded."""


class GuardrailSpec(MetricSpec):
    """A metric that a winner must not harm."""

    max_harm: Size
    """The change against `direction`, in the metric's unit, that is still tolerated."""


class BanditSpec(Record):
    """Moves weight to better arms while the experiment runs (Thompson sampling)."""

    enabled: bool = False
    floor_percent: Percent = 5.0
    """Share that every arm keeps, so that each goes on being measured."""
    interval_s: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=False)] = 60.0
    """Time between two changes of the weights."""


class GroupSpec(Record):
    """A layer: experiments of the same group never share a caller."""

    name: Name
    share_percent: Annotated[float, Field(gt=0, le=100, strict=False)]
    """This experiment's part of the group's callers; the parts of a group come to 100 at most."""


class ExperimentSpec(Record):
    """An A/B experiment: arms compared on a primary metric, within guardrails."""

    name: Name
    arms: dict[ArmName, Weight] = Field(min_length=2, max_length=20)
    """Version or label to weight; an arm's share is its weight divided by their sum."""
    control: ArmName
    """The arm that the others are compared with."""
    key: KeySpec | None = None
    """What identifies a caller, who then keeps one arm; without it every request is assigned by itself."""
    holdout_percent: Percent = 0.0
    """Share of callers kept out: answered as if there were no experiment, and not measured."""
    group: GroupSpec | None = None
    """Experiments that must not share callers with this one."""
    primary: PrimarySpec
    """The metric that decides."""
    guardrails: tuple[GuardrailSpec, ...] = Field(default=(), strict=False)
    """Metrics that a winner must not harm."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance of a wrong verdict over the whole run, however often the result is read."""
    bandit: BanditSpec = BanditSpec()
    """Weights that follow the outcomes."""
    remembered: Annotated[int, Field(ge=1000, le=1_000_000)] = 100_000
    """Assignments and outcomes that are kept to be joined, about half a kilobyte each; an outcome that comes after its
    assignment was forgotten is lost, and counted as such."""
    max_duration_s: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] = 604800.0
    """Longest run; after it the result says that the experiment should be stopped."""

    @model_validator(mode="after")
    def _arms_can_be_compared(self) -> Self:
        if self.control not in self.arms:
            raise ValueError(f"control: '{self.control}' is none of the arms")
        if sum(weight > 0 for weight in self.arms.values()) < 2 or not self.arms[self.control]:
            raise ValueError("arms: the control and at least one other arm need a weight above 0")
        if self.bandit.enabled and len(self.arms) * self.bandit.floor_percent > 100:
            raise ValueError("bandit.floor_percent: the floors of all arms come to more than 100")
        if self.group and not self.key:
            raise ValueError("key: experiments of a group need one, for a caller to be in one of them alone")
        return self

    @model_validator(mode="after")
    def _metrics_have_names_of_their_own(self) -> Self:
        names = [metric.metric for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError("guardrails: every metric, the primary one too, needs a name of its own")
        return self

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Everything that is measured, the primary metric first."""
        return (self.primary, *self.guardrails)

    def check(self, outcome: "OutcomeRecord") -> None:
        """Raises InvalidOutcome when the experiment measures no such metric, or the metric can't have the value."""
        known = {metric.metric: metric for metric in self.metrics}
        if outcome.metric not in known:
            raise InvalidOutcome(f"'{self.name}' measures no '{outcome.metric}'; it measures {', '.join(known)}")
        known[outcome.metric].check(outcome.value)


class OutcomeRecord(Record):
    """What became of one assignment, reported by the caller; reporting it again changes nothing."""

    assignment: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The assignment id from the answer's header."""
    key: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The caller's key, where no assignment id was kept."""
    metric: Name
    value: Number
    """Failures to convert count too: report 0 as well as 1."""
    event: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Tells several outcomes of one assignment and metric apart; without it only the first counts."""

    @model_validator(mode="after")
    def _names_its_assignment(self) -> Self:
        if (self.assignment is None) == (self.key is None):
            raise ValueError("give either the assignment id or the key")
        return self


class ExperimentsDocument(Record):
    """An experiments file."""

    experiments: tuple[ExperimentSpec, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [experiment.name for experiment in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"experiments: {', '.join(twice)} is given more than once")
        return self

    @model_validator(mode="after")
    def _groups_are_not_overbooked(self) -> Self:
        shares: dict[str, float] = {}
        for group in filter(None, (experiment.group for experiment in self.experiments)):
            shares[group.name] = shares.get(group.name, 0) + group.share_percent
        full = sorted(name for name, share in shares.items() if share > 100 + 1e-9)
        if full:
            raise ValueError(f"experiments: the shares of group {', '.join(full)} come to more than 100 percent")
        return self

    @model_validator(mode="after")
    def _groups_know_callers_by_one_key(self) -> Self:
        keys: dict[str, KeySpec | None] = {}
        for experiment in self.experiments:
            group = experiment.group
            if group and keys.setdefault(group.name, experiment.key) != experiment.key:
                raise ValueError(f"experiments: those of group {group.name} need the same key, to share no caller")
        return self
