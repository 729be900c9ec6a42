"""Experiments: outcomes find their arm and count once, in whatever order and however often they come."""

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judging.experiment import Arm, Experiment, Recording, assignment_of
from judging.moments import Moments
from nstarx.spec.experiment import OutcomeRecord

HALVES = {"a": 1.0, "b": 1.0}
ARM_OF = {"u1": "a", "u2": "b", "u3": "a", "u4": "b"}
Step: TypeAlias = str | OutcomeRecord
"""The exposure of an assignment, or an outcome."""

OUTCOMES = st.builds(
    OutcomeRecord,
    assignment=st.sampled_from([*ARM_OF, "never-assigned"]),
    metric=st.sampled_from(["purchase", "latency"]),
    value=st.integers(-5, 5).map(float),
    event=st.sampled_from([None, "e1", "e2"]),
)


def outcome(assignment: str, value: float = 1.0, metric: str = "purchase", **more: Any) -> OutcomeRecord:
    return OutcomeRecord(assignment=assignment, metric=metric, value=value, **more)


def started(remembered: int = 1000) -> Experiment:
    return Experiment("checkout", started_s=100.0, remembered=remembered)


def replayed(steps: list[Step], remembered: int = 1000) -> Experiment:
    experiment = started(remembered)
    for step in steps:
        if isinstance(step, str):
            experiment.expose({step: ARM_OF[step]}, HALVES)
        else:
            experiment.record(step)
    return experiment


def restarted(experiment: Experiment) -> Experiment:
    return Experiment.from_json(json.loads(json.dumps(experiment.to_json())))


def distinct(outcomes: list[OutcomeRecord]) -> list[OutcomeRecord]:
    """The first of each event: which of two different values counts is not a matter of order alone."""
    return list({(each.assignment, each.metric, each.event): each for each in outcomes}.values())


def test_an_outcome_counts_for_the_arm_of_its_assignment() -> None:
    experiment = started()
    experiment.expose({"u1": "a", "u2": "b"}, HALVES)
    assert experiment.record(outcome("u2", 3.0)) is Recording.COUNTED
    assert experiment.arms == {"b": Arm({"purchase": Moments(1, 3.0, 9.0)})}
    assert experiment.ratio.assigned == {"a": 1, "b": 1}


def test_an_outcome_reported_twice_counts_once() -> None:
    experiment = started()
    experiment.expose({"u1": "a"}, HALVES)
    assert experiment.record(outcome("u1")) is Recording.COUNTED
    assert experiment.record(outcome("u1")) is Recording.DUPLICATE
    assert experiment.record(outcome("u1", event="second-basket")) is Recording.COUNTED
    assert experiment.record(outcome("u1", metric="latency")) is Recording.COUNTED
    assert experiment.arms["a"]["purchase"].n == 2


def test_an_outcome_that_overtakes_its_assignment_waits_and_still_counts_once() -> None:
    experiment = started()
    assert experiment.record(outcome("u1")) is Recording.WAITING
    assert experiment.record(outcome("u1")) is Recording.DUPLICATE
    assert not experiment.arms
    experiment.expose({"u1": "a"}, HALVES)
    assert experiment.arms["a"]["purchase"] == Moments(1, 1.0, 1.0)
    assert experiment.record(outcome("u1")) is Recording.DUPLICATE


def test_an_assignment_seen_again_keeps_its_arm_and_counts_once() -> None:
    experiment = started()
    experiment.expose({"u1": "a"}, HALVES)
    experiment.expose({"u1": "b", "u2": "b"}, HALVES)
    experiment.record(outcome("u1"))
    assert experiment.ratio.assigned == {"a": 1, "b": 1}
    assert list(experiment.arms) == ["a"]


def test_a_caller_can_be_named_by_key() -> None:
    experiment = started()
    experiment.expose({assignment_of("checkout", "alice"): "a"}, HALVES)
    assert experiment.record(OutcomeRecord(key="alice", metric="purchase", value=1.0)) is Recording.COUNTED
    assert experiment.record(outcome(assignment_of("checkout", "alice"))) is Recording.DUPLICATE
    assert experiment.record(OutcomeRecord(key="bob", metric="purchase", value=1.0)) is Recording.WAITING
    assert assignment_of("checkout", "alice") != assignment_of("other", "alice")


@given(st.lists(OUTCOMES, max_size=12).map(distinct).flatmap(lambda o: st.permutations([*ARM_OF, *o])), st.data())
def test_the_order_of_exposures_and_outcomes_does_not_matter(steps: list[Step], data: st.DataObject) -> None:
    one, other = replayed(steps), replayed(data.draw(st.permutations(steps)))
    assert one.arms == other.arms
    assert one.ratio.assigned == other.ratio.assigned
    assert one.ratio.log_evidence == pytest.approx(other.ratio.log_evidence, abs=1e-9)


@given(st.lists(OUTCOMES, max_size=12), st.data())
def test_repetition_changes_nothing(outcomes: list[OutcomeRecord], data: st.DataObject) -> None:
    steps: list[Step] = [*ARM_OF, *outcomes]
    again = data.draw(st.lists(st.sampled_from(steps), max_size=12))
    once, twice = replayed(steps), replayed([*steps, *again])
    assert once.arms == twice.arms
    assert once.ratio == twice.ratio


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(OUTCOMES, st.sampled_from(list(ARM_OF))), max_size=20), st.integers(1, 5))
def test_everything_survives_a_restart(steps: list[Step], remembered: int) -> None:
    experiment = replayed(steps, remembered)
    assert restarted(experiment) == experiment


@given(st.lists(OUTCOMES, max_size=12), st.lists(OUTCOMES, max_size=12))
def test_sums_of_two_places_add_to_those_of_one(here: list[OutcomeRecord], there: list[OutcomeRecord]) -> None:
    def summed(outcomes: list[OutcomeRecord]) -> Arm:
        arm = Arm()
        for each in outcomes:
            arm = arm.observed(each.metric, each.value)
        return arm

    both = summed(here) + summed(there)
    assert both == summed(here + there)
    assert Arm.from_json(json.loads(json.dumps(both.to_json()))) == both


def test_an_outcome_that_waited_through_a_restart_counts() -> None:
    experiment = started()
    experiment.record(outcome("u1"))
    experiment = restarted(experiment)
    experiment.expose({"u1": "a"}, HALVES)
    assert experiment.arms["a"]["purchase"].n == 1


def test_memory_is_bounded_and_what_is_given_up_is_counted() -> None:
    experiment = started(remembered=3)
    for place in range(10):
        experiment.record(outcome(f"unknown-{place}"))
        experiment.record(outcome("flood", event=str(place)))
    assert experiment.lost == 17
    experiment.expose({f"unknown-{place}": "a" for place in range(10)}, HALVES)
    assert experiment.arms["a"]["purchase"].n == 1
    document = experiment.to_json()
    assert [len(document[memory]) for memory in ("assignments", "events", "waiting")] == [3, 3, 2]


def test_only_a_repetition_after_more_outcomes_than_are_remembered_counts_again() -> None:
    experiment = started(remembered=2)
    experiment.expose({"u1": "a"}, HALVES)
    for event in ("1", "2", "1", "3", "1"):
        experiment.record(outcome("u1", event=event))
    assert experiment.arms["a"]["purchase"].n == 4


def test_callers_who_come_back_are_remembered() -> None:
    experiment = started(remembered=2)
    for caller in ("regular", "x", "regular", "y", "regular", "z"):
        experiment.expose({caller: "a"}, HALVES)
    assert experiment.record(outcome("regular")) is Recording.COUNTED
    assert experiment.ratio.assigned["a"] == 4


def test_callers_who_come_back_after_they_were_forgotten_do_not_break_the_split() -> None:
    experiment = started(remembered=100)
    arms = {f"u{number}": "a" if number % 100 < 55 else "b" for number in range(400)}
    for _ in range(30):
        for assignment, arm in arms.items():
            experiment.expose({assignment: arm}, HALVES)
    assert experiment.ratio.assigned == {"a": 220, "b": 180}
    assert not experiment.ratio.verdict().alarm
