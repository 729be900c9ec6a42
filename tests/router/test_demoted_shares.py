"""What becomes of a route's shares when versions stand elsewhere than they were put."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.records import Snapshot
from judging.standing import Standing
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from router.facts import Facts
from router.shares import effective
from router.table import Compiler, Target
from tests.cluster.samples import spec
from tests.router.wire import IRIS

STABLE, CANDIDATE, THIRD = "iris@1.0.0", "iris@2.0.0", "iris@3.0.0"
DEMOTED = Standing(state="demoted")
PROBATION = Standing(state="probation", percent=1.0)


def canary(percent: float, **parts: Any) -> dict[str, Any]:
    return {"canary": {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}, **parts}


def compiled(split: dict[str, Any], compiler: Compiler | None = None, **given: Any) -> Target:
    """The target of a route with this split; `given` are the standings of its versions, and parts of the route."""
    standings = given.pop("standings", {})
    blown = given.pop("blown", ())
    route = RouteSpec.model_validate({"model": "iris", "split": split, **given})
    models = {ref: spec(ref) for ref in (STABLE, CANDIDATE, THIRD)}
    snapshot = Snapshot(models=models, routes=(route,), standings={"iris": standings})
    target = (compiler or Compiler()).compile(snapshot, [("iris", ref) for ref in blown]).at(IRIS.encode())
    assert target
    return target


def answers(target: Target, n: int = 1000, **headers: str) -> Counter[str]:
    facts = Facts({name.encode(): value.encode() for name, value in headers.items()}, IRIS.encode())
    return Counter(target.guide.decide(facts).arm.ref for _ in range(n))


def with_replica(target: Target, *refs: str) -> Target:
    """As if these versions alone had a replica."""
    for arm in (*target.arms, *([target.fallback] if target.fallback else [])):
        arm.backend.lanes = [object()] if arm.ref in refs else []  # type: ignore[list-item]
    return target


def test_candidate_with_all_traffic_gives_it_back_to_the_stable_version() -> None:
    target = compiled(canary(100), standings={CANDIDATE: DEMOTED})
    assert answers(target) == {STABLE: 1000}
    assert {target.next_arm().ref for _ in range(100)} == {STABLE}


def test_candidate_with_all_traffic_comes_back_with_one_per_cent_of_it() -> None:
    target = compiled(canary(100), standings={CANDIDATE: PROBATION})
    assert answers(target) == {STABLE: 990, CANDIDATE: 10}


def test_what_a_gateway_finds_guilty_leaves_its_traffic_before_anybody_is_asked() -> None:
    assert answers(compiled(canary(50), blown=[CANDIDATE])) == {STABLE: 1000}


def test_weight_of_a_demoted_version_goes_to_the_others_in_proportion() -> None:
    weighted = {"weighted": {STABLE: 60, CANDIDATE: 20, THIRD: 20}}
    assert answers(compiled(weighted, standings={CANDIDATE: DEMOTED})) == {STABLE: 750, THIRD: 250}


def test_where_demotions_leave_nobody_they_are_ignored() -> None:
    weighted = {"weighted": {STABLE: 1, CANDIDATE: 1}}
    assert answers(compiled(weighted, blown=[STABLE, CANDIDATE])) == {STABLE: 500, CANDIDATE: 500}


def test_demotion_moves_the_demoted_versions_users_and_nobody_else() -> None:
    split = {"weighted": {STABLE: 50, CANDIDATE: 30, THIRD: 20}, "sticky": {"header": "x-user"}}
    before, after = compiled(split), compiled(split, standings={CANDIDATE: DEMOTED})
    for user in map(str, range(500)):
        [was] = answers(before, 1, **{"x-user": user})
        [now] = answers(after, 1, **{"x-user": user})
        assert now == was or was == CANDIDATE
        assert now != CANDIDATE


RULES = [{"name": "testers", "match": {"headers": {"x-team": "qa"}}, "split": {"weighted": {CANDIDATE: 1}}}]


def test_rule_for_a_demoted_version_falls_to_the_route_s_own_split() -> None:
    target = compiled(canary(10), rules=RULES, standings={CANDIDATE: DEMOTED})
    decision = target.guide.decide(Facts({b"x-team": b"qa"}, b"/"))
    assert (decision.arm.ref, decision.rule) == (STABLE, "testers")


def test_rule_that_is_switched_off_is_passed_by() -> None:
    rules = [{**RULES[0], "enabled": False}]
    assert answers(compiled(canary(0), rules=rules), 10, **{"x-team": "qa"}) == {STABLE: 10}


def test_version_has_one_fuse_in_all_splits_of_its_route() -> None:
    rules = [*RULES, {"name": "more", "match": {}, "split": canary(100)}]
    target = compiled(canary(10), rules=rules)
    arms = [arm for _, _, choose in target.guide.rules for arm in choose.arms] + list(target.arms)
    fuses = {id(arm.fuse) for arm in arms if arm.ref == CANDIDATE}
    assert len(fuses) == 1
    assert target.arms[1].fuse
    assert [tally.role for tally in target.arms[1].fuse.tallies] == ["candidate", "primary"]
    assert [arm.fuse for arm in arms if arm.ref == STABLE] == [None, None]


def test_fuse_outlives_other_changes_and_ends_with_its_version() -> None:
    compiler = Compiler()
    first = compiled(canary(10), compiler).arms[1].fuse
    assert compiled(canary(20), compiler).arms[1].fuse is first
    compiled({"weighted": {STABLE: 1}}, compiler)
    assert not compiler.fuses
    assert compiled(canary(20), compiler).arms[1].fuse is not first


# Versions without replicas


@pytest.mark.parametrize("percent", [0, 10, 100])
def test_stable_version_of_a_canary_stands_in_whatever_its_share(percent: float) -> None:
    arm = with_replica(compiled(canary(percent)), STABLE).live_arm()
    assert arm
    assert arm.ref == STABLE


def test_candidate_without_a_share_does_not_stand_in() -> None:
    assert with_replica(compiled(canary(0)), CANDIDATE).live_arm() is None


def test_demoted_version_answers_before_nobody_does_and_after_the_fallback() -> None:
    alone = with_replica(compiled(canary(10), standings={CANDIDATE: DEMOTED}), CANDIDATE)
    assert alone.live_arm() is alone.arms[1]
    spare = compiled(canary(10), standings={CANDIDATE: DEMOTED}, fallback={"version": THIRD})
    assert with_replica(spare, CANDIDATE, THIRD).live_arm() is spare.fallback


@given(st.floats(0, 100), st.floats(0, 1))
def test_all_of_a_canary_is_always_given_to_somebody(percent: float, part: float) -> None:
    split = SplitSpec.model_validate(canary(percent))
    weights = effective(split, {CANDIDATE: part})
    assert sum(weights.values()) == pytest.approx(100)
    assert 0 <= weights[CANDIDATE] <= split.weights[CANDIDATE]
