"""Who takes part in an experiment, and in which arm."""

from collections import Counter
from typing import Any

import pytest

from cluster.records import Snapshot
from judging.experiment import assignment_of
from judging.standing import Standing
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.trial import Trial
from router.exposures import Exposures
from router.facts import Facts
from router.guide import Decision
from router.table import Compiler, Target
from tests.cluster.samples import spec
from tests.router.wire import IRIS

OLD, NEW, ODD = "iris@1.0.0", "iris@1.1.0", "iris@1.2.0"
BY_USER: dict[str, Any] = {"key": {"header": "x-user"}}
SHOP = {"name": "shop", "share_percent": 30}


def described(**parts: Any) -> dict[str, Any]:
    return {
        "name": "label",
        "arms": {OLD: 1, NEW: 1},
        "control": OLD,
        "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
        **parts,
    }


def trial(started: float = 1.0, weights: dict[str, float] | None = None, places: Any = (), **parts: Any) -> Trial:
    document = {"routes": [], "experiments": [described(**parts)]}
    [experiment] = parse(RoutesDocument, document, "test").experiments
    weights = weights or dict(experiment.arms)
    return Trial(experiment=experiment, started=started, changed=started, weights=weights, places=places)


def target(running: Trial, standings: Any = None) -> Target:
    experiment = running.experiment
    route = RouteSpec.model_validate({"model": "iris", "split": {"experiment": experiment.name}})
    bound = route.bound({experiment.name: experiment}, {experiment.name: running})
    models = {ref: spec(ref) for ref in (OLD, NEW, ODD)}
    found = Compiler().compile(Snapshot(models=models, routes=(bound,), standings=standings or {})).at(IRIS.encode())
    assert found
    return found


def decided(found: Target, user: str | None = "alice") -> Decision:
    return found.guide.decide(Facts({} if user is None else {b"x-user": user.encode()}, b""))


def arms_of(found: Target, users: int = 3000) -> dict[str, str | None]:
    """User to arm, None for those who don't take part."""
    named = {f"user-{number}": decided(found, f"user-{number}") for number in range(users)}
    return {user: d.assignment.arm if d.assignment else None for user, d in named.items()}


def test_the_same_user_has_the_same_arm_and_the_same_assignment_everywhere() -> None:
    running = trial(**BY_USER)
    here, there = decided(target(running)), decided(target(running))
    assert here.assignment
    assert there.assignment
    assert here.assignment.id == there.assignment.id == assignment_of("label/1.000", "alice")
    assert here.arm.ref == here.assignment.arm == there.arm.ref
    assert (here.key, here.arm.role) == (b"alice", "control" if here.arm.ref == OLD else "arm")


def test_shares_are_those_of_the_weights_in_force() -> None:
    arms = Counter(arms_of(target(trial(weights={OLD: 1.0, NEW: 3.0}, **BY_USER))).values())
    assert set(arms) == {OLD, NEW}
    assert arms[NEW] / 3000 == pytest.approx(0.75, abs=0.03)


def test_changed_weights_move_only_those_who_must_move() -> None:
    before = arms_of(target(trial(weights={OLD: 5.0, NEW: 5.0}, **BY_USER)))
    after = arms_of(target(trial(weights={OLD: 3.0, NEW: 7.0}, **BY_USER)))
    moved = Counter((before[user], after[user]) for user in before if before[user] != after[user])
    assert set(moved) == {(OLD, NEW)}
    assert moved[OLD, NEW] / 3000 == pytest.approx(0.2, abs=0.03)


def test_a_new_run_deals_anew_and_keeps_who_is_held_out() -> None:
    first, second = (arms_of(target(trial(started, holdout_percent=20, **BY_USER))) for started in (1.0, 2.0))
    out = {user for user, arm in first.items() if arm is None}
    assert out == {user for user, arm in second.items() if arm is None}
    assert len(out) / 3000 == pytest.approx(0.2, abs=0.03)
    same = sum(first[user] == second[user] for user in first.keys() - out)
    assert same / (3000 - len(out)) == pytest.approx(0.5, abs=0.05)


def test_held_out_and_without_a_key_is_answered_by_the_control_and_not_counted() -> None:
    found = target(trial(holdout_percent=50, **BY_USER))
    for decision in [decided(found, None), *(decided(found, f"user-{number}") for number in range(200))]:
        if decision.assignment is None:
            assert (decision.arm.ref, decision.arm.role) == (OLD, "control")
    assert decided(found, None).assignment is None


def test_experiments_of_a_group_share_nobody_and_leave_nobody_out() -> None:
    parts = (((0, 300_000),), ((300_000, 500_000), (700_000, 1_000_000)), ((500_000, 700_000),))
    taking = []
    for number, places in enumerate(parts):
        running = trial(name=f"label-{number}", places=places, group=SHOP, **BY_USER)
        taking.append({user for user, arm in arms_of(target(running), 1000).items() if arm})
    assert set.union(*taking) == {f"user-{number}" for number in range(1000)}
    assert sum(map(len, taking)) == 1000
    assert len(taking[0]) / 1000 == pytest.approx(0.3, abs=0.05)


def test_without_a_key_every_request_is_an_assignment_of_its_own_and_counted_out() -> None:
    found = target(trial(holdout_percent=25))
    decisions = [decided(found, "alice") for _ in range(1000)]
    assignments = [decision.assignment for decision in decisions if decision.assignment]
    assert len({assignment.id for assignment in assignments}) == len(assignments)
    assert len(assignments) == pytest.approx(750, abs=2)
    assert Counter(assignment.arm for assignment in assignments)[NEW] == pytest.approx(375, abs=3)
    assert {decision.arm.ref for decision in decisions if not decision.assignment} == {OLD}


def test_a_client_without_the_cookie_is_given_one_and_keeps_its_arm() -> None:
    found = target(trial(key={"cookie": {"name": "visitor"}}))
    first = decided(found, None)
    assert first.assignment
    name, _, value = first.lines.partition(b": ")[2].partition(b";")[0].partition(b"=")
    assert (name, value) == (b"visitor", first.key)
    again = found.guide.decide(Facts({b"cookie": b"visitor=" + value}, b""))
    assert (again.assignment, again.lines) == (first.assignment, b"")


def test_what_a_demoted_arm_loses_moves_its_own_users_and_nobody_else() -> None:
    running = trial(arms={OLD: 1, NEW: 1, ODD: 1}, **BY_USER)
    demoted = {"iris": {NEW: Standing(state="demoted", since=1.0, until=9.0)}}
    before, after = arms_of(target(running)), arms_of(target(running, demoted))
    assert set(after.values()) == {OLD, ODD}
    assert {before[user] for user in before if before[user] != after[user]} == {NEW}
    decision = decided(target(running, demoted))
    assert decision.assignment
    assert decision.assignment.terms.weights == {OLD: 1.0, ODD: 1.0}


def test_deciding_alone_counts_nobody() -> None:
    exposures = Exposures()
    compiler = Compiler(exposures=exposures)
    running = trial(**BY_USER)
    route = RouteSpec.model_validate({"model": "iris", "split": {"experiment": "label"}})
    bound = route.bound({"label": running.experiment}, {"label": running})
    found = compiler.compile(Snapshot(routes=(bound,))).at(IRIS.encode())
    assert found
    assert decided(found).assignment
    assert exposures.oldest() is None


def test_an_experiment_that_does_not_run_costs_its_route_nothing() -> None:
    running = trial(**BY_USER)
    found = target(running.model_copy(update={"stopped": 2.0}))
    assert found.stages == ()
    assert [(arm.ref, arm.weight, arm.role) for arm in found.arms] == [(OLD, 1.0, "control"), (NEW, 0.0, "arm")]
    assert target(running).stages != ()


def test_arms_are_rescued_by_the_control() -> None:
    control, arm = target(trial(**BY_USER)).arms
    assert (control.rescuer, arm.rescuer and arm.rescuer.ref) == (None, OLD)
    assert arm.fuse
    assert control.fuse is None


def test_explaining_says_the_arm_of_a_key_and_none_where_there_is_none() -> None:
    found = target(trial(**BY_USER))
    chooser = found.guide.default
    assigned = chooser.assigned(Facts({b"x-user": b"alice"}, b""))
    assert assigned
    assert assigned.ref == decided(found).arm.ref
    nobody = chooser.assigned(Facts({}, b""))
    assert nobody
    assert nobody.ref == OLD
    assert (
        chooser.about(Facts({b"x-user": b"alice"}, b"")) == "Experiment 'label' is running, and this caller takes part."
    )
    assert "header 'x-user' is missing: the control answers" in str(chooser.about(Facts({}, b"")))
    assert target(trial()).guide.default.assigned(Facts({}, b"")) is None
    assert target(trial(key={"cookie": {"name": "visitor"}})).guide.default.assigned(Facts({}, b"")) is None
