"""Experiment files: what they may say, and what is refused with a reason."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.experiment import ExperimentsDocument, ExperimentSpec, InvalidOutcome, OutcomeRecord
from nstarx.spec.record import parse, parse_yaml

FILE = """
name: checkout
arms: {iris@1.0.0: 9, treatment: 1}
control: iris@1.0.0
key: {header: X-User}
holdout_percent: 10
group: {name: shop, share_percent: 50}
primary: {metric: purchase, kind: binary, direction: increase, min_effect: 0.01}
guardrails:
  - {metric: latency_ms, kind: continuous, direction: decrease, max_harm: 5}
  - {metric: stars, kind: bounded, range: [1, 5], direction: increase, max_harm: 0.2}
bandit: {enabled: true, floor_percent: 10}
"""


def changed(**fields: Any) -> dict[str, Any]:
    return {**parse_yaml(FILE, "test"), **fields}


def spec(**fields: Any) -> ExperimentSpec:
    return parse(ExperimentSpec, changed(**fields), "test")


def metric(**fields: Any) -> dict[str, Any]:
    return {"metric": "stars", "kind": "bounded", "range": [1, 5], "direction": "increase", **fields}


def test_a_file_says_what_is_compared_and_what_counts() -> None:
    experiment = spec()
    assert experiment.arms == {"iris@1.0.0": 9.0, "treatment": 1.0}
    assert experiment.key is not None
    assert experiment.key.header == "x-user"
    assert [each.metric for each in experiment.metrics] == ["purchase", "latency_ms", "stars"]
    assert [each.limits for each in experiment.metrics] == [(0, 1), None, (1, 5)]
    assert (experiment.alpha, experiment.max_duration_s) == (0.05, 7 * 86400)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"control": "other"}, "control: 'other' is none of the arms"),
        ({"arms": {"iris@1.0.0": 1}}, "arms"),
        ({"arms": {"iris@1.0.0": 1, "iris@one": 1}}, "not a semantic version"),
        ({"arms": {"iris@1.0.0": 1, "b": 0}}, "at least one other arm need a weight"),
        ({"arms": {"iris@1.0.0": 0, "b": 1, "c": 1}}, "the control and at least one other arm"),
        ({"alpha": 0}, "alpha"),
        ({"bandit": {"enabled": True, "floor_percent": 51}}, "more than 100"),
        ({"holdout_percent": 101}, "holdout_percent"),
        ({"primary": metric(range=None)}, "smallest and largest value of a bounded metric"),
        ({"primary": metric(kind="continuous")}, "of no other"),
        ({"primary": metric(range=[5, 1])}, "the smallest value comes first"),
        ({"primary": metric(min_effect=-1)}, "min_effect"),
        ({"guardrails": [metric(max_harm=1, metric="purchase")]}, "a name of its own"),
        ({"guardrails": [metric()]}, "max_harm: is required"),
        ({"weights": {}}, "unknown key"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidConfiguration, match=reason):
        spec(**fields)


def outcome(name: str, value: float) -> OutcomeRecord:
    return OutcomeRecord(assignment="a1", metric=name, value=value)


@pytest.mark.parametrize(
    "reported", [("purchase", 1), ("purchase", 0), ("latency_ms", -1e9), ("stars", 1), ("stars", 5)]
)
def test_values_that_a_metric_can_have_are_taken(reported: tuple[str, float]) -> None:
    spec().check(outcome(*reported))


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        (("purchase", 0.5), "'purchase' is binary; report 0 or 1, not 0.5"),
        (("stars", 6), "'stars' lies between 1 and 5"),
        (("clicks", 1), "'checkout' measures no 'clicks'; it measures purchase, latency_ms, stars"),
    ],
)
def test_values_that_a_metric_cannot_have_are_refused(reported: tuple[str, float], reason: str) -> None:
    with pytest.raises(InvalidOutcome, match=reason) as refused:
        spec().check(outcome(*reported))
    assert (refused.value.status, refused.value.code) == (400, "invalid_outcome")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"assignment": "a", "key": "k"},
        {"assignment": ""},
        {"assignment": "a", "value": float("nan")},
        {"assignment": "a", "value": 1e300},
        {"assignment": "a", "event": "e" * 129},
    ],
)
def test_an_outcome_names_one_assignment_and_a_finite_value(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration):
        parse(OutcomeRecord, {"metric": "purchase", "value": 1, **fields}, "outcome")
    parse(OutcomeRecord, {"metric": "purchase", "value": 1, "key": "alice", "event": "e1"}, "outcome")


def test_experiments_of_a_group_cannot_claim_more_callers_than_there_are() -> None:
    half, rest = changed(), changed(name="other", group={"name": "shop", "share_percent": 50})
    assert len(parse(ExperimentsDocument, {"experiments": [half, rest]}, "test").experiments) == 2
    rest["group"]["share_percent"] = 51
    with pytest.raises(InvalidConfiguration, match="shares of group shop come to more than 100"):
        parse(ExperimentsDocument, {"experiments": [half, rest]}, "test")
    rest["group"]["name"] = "search"
    parse(ExperimentsDocument, {"experiments": [half, rest]}, "test")


def test_two_experiments_have_two_names() -> None:
    with pytest.raises(InvalidConfiguration, match="checkout is given more than once"):
        parse(ExperimentsDocument, {"experiments": [changed(), changed()]}, "test")
