"""What people are told about a decision is what the hot path decides."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.records import Snapshot
from judging.standing import Standing
from nstarx.errors import InvalidRequest
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from router.explaining import Explanation, Question, explained
from router.table import Compiler, Target
from tests.cluster.samples import spec

STABLE, CANDIDATE, OTHER = "iris@1.0.0", "iris@2.0.0", "iris@3.0.0"
CANARY = {"canary": {"stable": STABLE, "candidate": CANDIDATE, "percent": 10}, "sticky": {"header": "x-user"}}
COOKIE = {"weighted": {STABLE: 1, OTHER: 1}, "sticky": {"cookie": {"name": "arm"}}}
QA = {"headers": {"x-team": {"one_of": ["qa", "ml"]}}}
RULES: list[dict[str, Any]] = [
    {
        "name": "testers",
        "match": {"headers": {"x-team": {"one_of": ["qa", "ml"]}}},
        "split": {"weighted": {CANDIDATE: 1}},
    },
    {"name": "off", "match": {}, "split": {"weighted": {OTHER: 1}}, "enabled": False},
    {"name": "browsers", "match": {"query": {"ui": {"present": True}}}, "split": COOKIE},
    {"name": "flag", "match": {"percent": 50, "key": {"header": "x-user"}}, "split": {"weighted": {OTHER: 1}}},
]


def target(rules: list[dict[str, Any]] = RULES, demoted: tuple[str, ...] = (), **parts: Any) -> Target:
    route = {"model": "iris", "split": CANARY, "rules": rules, **parts}
    standings = {"iris": {ref: Standing(state="demoted") for ref in demoted}}
    snapshot = Snapshot(
        models={ref: spec(ref) for ref in (STABLE, CANDIDATE, OTHER)},
        routes=parse(RoutesDocument, {"routes": [route]}, "routes").routes,
        standings=standings,
    )
    compiler = Compiler()
    found = compiler.compile(snapshot).at(b"/v2/models/iris/infer")
    assert found
    for backend in compiler.backends.values():
        backend.lanes = [object()]  # type: ignore[list-item]
    return found


def explanation(found: Target | None = None, demoted: tuple[str, ...] = (), **question: Any) -> Explanation:
    standings = {ref: Standing(state="demoted") for ref in demoted}
    return explained(found or target(demoted=demoted), Question(model="iris", **question), standings)


def chances(found: Explanation) -> dict[str, float]:
    return {chance.version: chance.percent for chance in found.versions if chance.percent}


def test_rule_that_decides_is_named_with_what_each_condition_has_found() -> None:
    found = explanation(headers={"X-Team": "qa"})
    assert (found.decided_by, chances(found)) == ("testers", {CANDIDATE: 100})
    assert [rule.matches for rule in found.rules] == [True, False, False, False]
    assert found.rules[0].findings[0].sentence == "header 'x-team' is 'qa'; the rule wants one of 'qa', 'ml'"
    assert found.sentence == f"Rule 'testers' is the first that matches: its split decides. {CANDIDATE} answers."


def test_key_that_ties_a_caller_to_a_version_is_named() -> None:
    found = explanation(target([]), headers={"x-user": "ann"})
    assert found.assigned_by == "header 'x-user'"
    [version] = chances(found)
    assert found.sentence == f"The route's split decides. By header 'x-user' this caller gets {version} each time."


def test_request_without_a_key_is_told_its_chances() -> None:
    found = explanation(target([]))
    assert chances(found) == {STABLE: 90, CANDIDATE: 10}
    assert found.sentence.endswith(
        f"Header 'x-user' is missing; requests are counted out: {STABLE} 90 %, {CANDIDATE} 10 %."
    )


def test_cookie_that_will_be_issued_is_told() -> None:
    found = explanation(query={"ui": "1"})
    assert (found.decided_by, found.assigned_by) == ("browsers", None)
    assert "Cookie 'arm' is missing; the gateway issues one with the first answer" in found.sentence
    assert explanation(query={"ui": "1"}, cookies={"arm": "x"}).assigned_by == "cookie 'arm'"


def test_demotion_is_told_and_what_it_changes() -> None:
    found = explanation(demoted=(CANDIDATE,))
    assert chances(found) == {STABLE: 100}
    assert {chance.version: chance.state for chance in found.versions}[CANDIDATE] == "demoted"
    assert f"{CANDIDATE} is demoted. {STABLE} answers." in found.sentence
    tester = explanation(demoted=(CANDIDATE,), headers={"x-team": "qa"})
    assert chances(tester) == {STABLE: 100}
    assert "Rule 'testers' is the first that matches, but every version of its split is demoted" in tester.sentence


def test_version_without_a_replica_is_told_with_who_stands_in() -> None:
    found = target([])
    found.arms[0].backend.lanes = []
    sentence = explanation(found).sentence
    assert sentence.endswith(f"{STABLE} has no replica here; {CANDIDATE} answers in its place.")


def test_what_no_header_can_hold_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no header can"):
        explanation(headers={"x-user": "日本"})


def test_explaining_takes_nobodys_turn() -> None:
    found = target([])
    for _ in range(50):
        explanation(found)
    assert [found.next_arm().ref for _ in range(1000)].count(CANDIDATE) == 100


def requests() -> st.SearchStrategy[dict[str, Any]]:
    text = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)
    return st.fixed_dictionaries(
        {
            "headers": st.fixed_dictionaries({}, optional={"x-team": st.sampled_from(["qa", "hr"]), "x-user": text}),
            "query": st.fixed_dictionaries({}, optional={"ui": text}),
            "cookies": st.fixed_dictionaries({}, optional={"arm": st.sampled_from(["a", "b", "c"])}),
        }
    )


@pytest.mark.parametrize("demoted", [(), (CANDIDATE,), (OTHER,), (CANDIDATE, OTHER)], ids=str)
@given(request=requests())
def test_explanation_and_decision_agree(demoted: tuple[str, ...], request: dict[str, Any]) -> None:
    found = target(demoted=demoted)
    said, decided = (
        explanation(found, demoted, **request),
        found.guide.decide(Question(model="iris", **request).facts()),
    )
    assert said.decided_by == decided.rule
    assert decided.arm.ref in chances(said)
    if said.assigned_by:
        assert chances(said) == {decided.arm.ref: 100}
