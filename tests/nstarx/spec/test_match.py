"""Matches: which requests a rule is for."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.match import Match, StringMatch
from nstarx.spec.record import parse


def test_text_alone_means_exactly_that_text() -> None:
    match = parse(Match, {"headers": {"X-Tenant": "acme"}}, "match")
    assert match.headers == {"x-tenant": StringMatch(exact="acme")}


def test_every_condition_can_be_given_at_once() -> None:
    match = parse(
        Match,
        {
            "headers": {"x-tenant": {"one_of": ["acme", "umbrella"]}, "x-debug": {"present": False}},
            "query": {"mode": {"prefix": "fast"}},
            "cookies": {"beta": "yes"},
            "claims": {"realm_access.roles": {"exact": "tester", "invert": True}},
            "caller": ["batch"],
            "client_address": ["10.0.0.0/8", "::1"],
            "percent": 10,
            "key": {"header": "x-user"},
        },
        "match",
    )
    assert match.client_address == ("10.0.0.0/8", "::1/128")
    assert match.percent == 10


@pytest.mark.parametrize(
    ("document", "part"),
    [
        (
            {"headers": {"x": {}}},
            "headers.x: give exactly one of exact, prefix, suffix, contains, regex, present, one_of",
        ),
        ({"headers": {"x": {"exact": "a", "prefix": "b"}}}, "headers.x: give exactly one of"),
        ({"headers": {"x": 3}}, "headers.x: write a text in quotes"),
        ({"headers": {"x": {"exact": 3}}}, "headers.x.exact: "),
        ({"headers": {"x": {"regex": "(a+)+"}}}, "headers.x.regex: '(a+)+' could take very long"),
        ({"headers": {"x": {"one_of": []}}}, "headers.x.one_of: "),
        ({"headers": {"x": {"prefix": ""}}}, "headers.x.prefix: "),
        ({"headers": {"a b": "c"}}, "'a b' is not a header or cookie name"),
        ({"headers": {"A": "c", "a": "d"}}, "headers: a is given twice"),
        ({"claims": {".a": "c"}}, "'.a' is not the way to a claim"),
        ({"client_address": ["10.0.0.1/8"]}, "client_address.0: 10.0.0.1/8 has host bits set; write a network like"),
        ({"client_address": ["here"]}, "client_address.0: 'here' does not appear to be an IPv4 or IPv6 network"),
        ({"percent": 10}, "key: say what percent counts by"),
        ({"key": {"header": "a"}}, "percent: is required with key"),
        ({"percent": 101, "key": {"header": "a"}}, "percent: "),
        ({"percent": float("nan"), "key": {"header": "a"}}, "percent: "),
        ({"methods": ["GET"]}, "methods: unknown key"),
    ],
)
def test_what_is_wrong_with_a_match_is_said_with_its_field(document: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        parse(Match, document, "routes.yaml")
    assert part in refused.value.sentence


@pytest.mark.parametrize(
    ("match", "sentence"),
    [
        (StringMatch(exact="a"), "'a'"),
        (StringMatch(prefix="a"), "one that begins with 'a'"),
        (StringMatch(regex="a.*"), "one that matches 'a.*'"),
        (StringMatch(one_of=("a", "b")), "one of 'a', 'b'"),
        (StringMatch(present=True), "any"),
        (StringMatch(present=False), "none"),
        (StringMatch(suffix="a", invert=True), "anything but one that ends with 'a'"),
    ],
)
def test_rule_says_what_it_wants(match: StringMatch, sentence: str) -> None:
    assert str(match) == sentence
