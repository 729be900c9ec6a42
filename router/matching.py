"""Matching: which requests a rule is for, compiled for the gateway and explained for people."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

from nstarx.spec.key import KeySpec
from nstarx.spec.match import Match, StringMatch
from router.addresses import within
from router.claims import claim_texts, find_claim
from router.cohort import UNITS, UNITS_A_PERCENT, unit
from router.facts import Facts
from router.sticky import key_of
from router.values import value_test

Test = Callable[[Facts], bool]

LONGEST_SHOWN = 80
"""Characters of a value that an explanation shows."""


class Finding(NamedTuple):
    """One condition of a rule, and whether a request meets it."""

    holds: bool
    sentence: str


class Condition(NamedTuple):
    """One condition of a rule."""

    test: Test
    wanted: str
    """What the rule wants, as an explanation says it."""
    found: Callable[[Facts], str]
    """What the request has."""


def compile_match(match: Match, salt: str) -> Test:
    """What says whether a request meets every condition. `salt` makes percentages of different rules independent."""
    tests = [condition.test for condition in _conditions(match, salt)]
    return reduce(_both, tests) if tests else lambda facts: True


def explain(match: Match, salt: str, facts: Facts) -> list[Finding]:
    """Each condition with what the request has and what the rule wants. No condition: no finding, and a match."""
    return [
        Finding(condition.test(facts), f"{condition.found(facts)}; the rule wants {condition.wanted}")
        for condition in _conditions(match, salt)
    ]


def _both(first: Test, second: Test) -> Test:
    return lambda facts: first(facts) and second(facts)


def _conditions(match: Match, salt: str) -> Iterator[Condition]:
    """Every condition given, those first that cost least."""
    for name, wanted in match.headers.items():
        yield _header(name, wanted)
    if match.caller:
        yield _caller(match.caller)
    if match.client_address:
        yield _address(match.client_address)
    for path, wanted in match.claims.items():
        yield _claim(path, wanted)
    for name, wanted in match.cookies.items():
        yield _cookie(name, wanted)
    for name, wanted in match.query.items():
        yield _query(name, wanted)
    if match.percent is not None and match.key is not None:
        yield _percent(match.percent, match.key, salt.encode())


def _header(name: str, wanted: StringMatch) -> Condition:
    key, holds = name.encode(), value_test(wanted)
    return Condition(
        lambda facts: holds(facts.headers.get(key)),
        str(wanted),
        lambda facts: f"header '{name}' is {_shown(facts.headers.get(key))}",
    )


def _cookie(name: str, wanted: StringMatch) -> Condition:
    key, holds = name.encode(), value_test(wanted)
    return Condition(
        lambda facts: holds(facts.cookies.get(key)),
        str(wanted),
        lambda facts: f"cookie '{name}' is {_shown(facts.cookies.get(key))}",
    )


def _query(name: str, wanted: StringMatch) -> Condition:
    key, holds = name.encode(), value_test(wanted)
    return Condition(
        lambda facts: holds(facts.query.get(key)),
        str(wanted),
        lambda facts: f"query parameter '{name}' is {_shown(facts.query.get(key))}",
    )


def _claim(path: str, wanted: StringMatch) -> Condition:
    """Of a list, one element meets a rule; an inverted rule is met when none does."""
    holds, inverted = value_test(wanted.model_copy(update={"invert": False})), wanted.invert

    def test(facts: Facts) -> bool:
        texts = claim_texts(find_claim(facts.claims, path))
        return any(map(holds, texts or (None,))) is not inverted

    def found(facts: Facts) -> str:
        texts = claim_texts(find_claim(facts.claims, path))
        return f"claim '{path}' is {', '.join(map(_shown, texts)) or _shown(None)}"

    return Condition(test, str(wanted), found)


def _caller(names: tuple[str, ...]) -> Condition:
    allowed = frozenset(names)
    return Condition(
        lambda facts: facts.caller in allowed,
        f"one of {', '.join(map(repr, names))}",
        lambda facts: f"the caller is {facts.caller!r}" if facts.caller else "the caller is unknown",
    )


def _address(networks: tuple[str, ...]) -> Condition:
    inside = within(networks)
    return Condition(
        lambda facts: inside(facts.client_address),
        f"one in {', '.join(networks)}",
        lambda facts: f"the client's address is {facts.client_address or 'unknown'}",
    )


def _percent(percent: float, spec: KeySpec, salt: bytes) -> Condition:
    key, limit = key_of(spec), round(percent * UNITS_A_PERCENT)

    def test(facts: Facts) -> bool:
        value = key(facts)
        return limit == UNITS if value is None else unit(value, salt) < limit

    def found(facts: Facts) -> str:
        value = key(facts)
        return f"{spec} is missing" if value is None else f"{spec} stands at {unit(value, salt) / UNITS_A_PERCENT:g} %"

    return Condition(test, f"less than {percent:g} %" if limit < UNITS else "any", found)


def _shown(value: bytes | None) -> str:
    if value is None:
        return "missing"
    text = value.decode("utf-8", "replace")
    return repr(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…")
