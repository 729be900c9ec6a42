"""Which requests a rule is for, and how that is explained."""

from typing import Any

import pytest

from nstarx.spec.match import Match
from nstarx.spec.record import parse
from router.facts import Facts
from router.matching import compile_match, explain

FACTS = Facts(
    {b"x-tenant": b"acme", b"cookie": b"beta=yes"},
    b"/v2/models/iris/infer?mode=fast",
    "10.1.2.3",
    {"sub": "ada", "roles": ["admin", "tester"], "level": 3},
    "ada",
)


def match(**document: Any) -> Match:
    return parse(Match, document, "match")


def matches(facts: Facts = FACTS, **document: Any) -> bool:
    return compile_match(match(**document), "rule")(facts)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"headers": {"X-Tenant": "acme"}},
        {"headers": {"x-debug": {"present": False}}},
        {"query": {"mode": {"prefix": "fa"}}},
        {"cookies": {"beta": {"one_of": ["yes", "maybe"]}}},
        {"claims": {"roles": "tester"}},
        {"claims": {"level": "3"}},
        {"claims": {"roles": {"exact": "guest", "invert": True}}},
        {"claims": {"nothing": {"present": False}}},
        {"caller": ["grace", "ada"]},
        {"client_address": ["192.168.0.0/16", "10.0.0.0/8"]},
    ],
)
def test_request_that_meets_a_condition_matches(document: dict[str, Any]) -> None:
    assert matches(**document)


@pytest.mark.parametrize(
    "document",
    [
        {"headers": {"x-tenant": "umbrella"}},
        {"headers": {"x-tenant": {"exact": "acme", "invert": True}}},
        {"query": {"mode": "slow"}},
        {"cookies": {"gamma": "yes"}},
        {"claims": {"roles": {"exact": "tester", "invert": True}}},
        {"claims": {"nothing": "x"}},
        {"caller": ["grace"]},
        {"client_address": ["192.168.0.0/16"]},
        {"headers": {"x-tenant": "acme"}, "query": {"mode": "slow"}},
        {"headers": {"x-tenant": "acme"}, "query": {"mode": "fast"}, "cookies": {"beta": "yes"}, "caller": ["grace"]},
    ],
)
def test_request_that_fails_one_condition_does_not_match(document: dict[str, Any]) -> None:
    assert not matches(**document)


def test_unknown_caller_meets_no_list_of_callers() -> None:
    assert not matches(Facts({}, b"/"), caller=["ada"])


def users(count: int) -> list[Facts]:
    return [Facts({b"x-user": b"%d" % user}, b"/") for user in range(count)]


def test_percentage_takes_its_share_of_users_and_raising_it_only_adds_some() -> None:
    everyone, before = users(10_000), set[int]()
    for percent in (0, 0.5, 10, 25, 50, 99.9, 100):
        test = compile_match(match(percent=percent, key={"header": "x-user"}), "dark-mode")
        taken = {user for user, facts in enumerate(everyone) if test(facts)}
        assert before <= taken
        assert abs(len(taken) - percent * 100) < 200
        before = taken
    assert len(before) == 10_000


def test_percentages_of_two_rules_take_different_users() -> None:
    spec = match(percent=50, key={"header": "x-user"})
    first, second = compile_match(spec, "one"), compile_match(spec, "two")
    both = sum(first(facts) and second(facts) for facts in users(10_000))
    assert abs(both - 2500) < 200


def test_request_without_the_key_is_in_only_when_all_are() -> None:
    nobody = Facts({}, b"/")
    assert not matches(nobody, percent=99.99, key={"header": "x-user"})
    assert matches(nobody, percent=100, key={"header": "x-user"})


def test_explanation_says_of_each_condition_what_came_and_what_is_wanted() -> None:
    spec = match(
        headers={"x-tenant": {"one_of": ["acme", "umbrella"]}},
        query={"mode": "slow"},
        cookies={"gamma": {"present": True}},
        claims={"roles": {"exact": "guest", "invert": True}},
        caller=["grace"],
        client_address=["10.0.0.0/8"],
        percent=10,
        key={"header": "x-user"},
    )
    assert [tuple(finding) for finding in explain(spec, "rule", FACTS)] == [
        (True, "header 'x-tenant' is 'acme'; the rule wants one of 'acme', 'umbrella'"),
        (False, "the caller is 'ada'; the rule wants one of 'grace'"),
        (True, "the client's address is 10.1.2.3; the rule wants one in 10.0.0.0/8"),
        (True, "claim 'roles' is 'admin', 'tester'; the rule wants anything but 'guest'"),
        (False, "cookie 'gamma' is missing; the rule wants any"),
        (False, "query parameter 'mode' is 'fast'; the rule wants 'slow'"),
        (False, "header 'x-user' is missing; the rule wants less than 10 %"),
    ]


def test_explanation_of_a_percentage_says_where_the_key_stands() -> None:
    [finding] = explain(match(percent=100, key={"query": "mode"}), "rule", FACTS)
    assert finding.holds
    assert finding.sentence.startswith("query parameter 'mode' stands at ")
    assert finding.sentence.endswith(" %; the rule wants any")


def test_explanation_of_what_is_unknown_says_so_and_cuts_what_is_long() -> None:
    spec = match(caller=["a"], client_address=["::1"], headers={"x": "y"})
    sentences = " ".join(finding.sentence for finding in explain(spec, "rule", Facts({b"x": b"z" * 999}, b"/")))
    assert "the caller is unknown" in sentences
    assert "the client's address is unknown" in sentences
    assert len(sentences) < 400


def test_match_without_conditions_needs_no_explanation() -> None:
    assert explain(match(), "rule", FACTS) == []
