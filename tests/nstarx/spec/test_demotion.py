"""Demotion policies: what a file may say, and what is refused with a reason."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.demotion import DemotionSpec, MinEffect
from nstarx.spec.record import parse, parse_yaml

FILE = """
enforce: false
max_error_rate: 0.02
min_effect: {ratio: 2, floor: 0.01}
consecutive_failures: 7
max_p99_ms: 250
max_p99_ratio: 1.5
interval_s: 30
demotion_time_s: 60
"""


def spec(document: Any) -> DemotionSpec:
    return parse(DemotionSpec, document, "file")


def test_a_file_says_what_it_wants() -> None:
    policy = spec(parse_yaml(FILE, "file"))
    assert not policy.enforce
    assert policy.min_effect == MinEffect(ratio=2.0, floor=0.01)
    assert (policy.consecutive_failures, policy.max_p99_ms, policy.interval_s) == (7, 250.0, 30.0)


def test_words_and_defaults_are_those_of_the_field() -> None:
    policy = spec({})
    assert policy.enforce
    assert policy.consecutive_failures == 5
    assert (policy.interval_s, policy.demotion_time_s, policy.max_demotion_time_s) == (10.0, 30.0, 300.0)
    assert policy.false_alarm <= 1e-3


def test_rules_are_switched_off_one_by_one() -> None:
    policy = spec({"consecutive_failures": 0, "max_error_rate": None, "min_effect": None})
    assert (policy.consecutive_failures, policy.max_error_rate, policy.min_effect) == (0, None, None)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"max_error_rate": 5}, "max_error_rate"),
        ({"max_error_rate": 0}, "max_error_rate"),
        ({"min_effect": {"ratio": 0.5}}, "min_effect.ratio"),
        ({"min_effect": {"floor": 0}}, "min_effect.floor"),
        ({"false_alarm": 0}, "false_alarm"),
        ({"min_requests": 0}, "min_requests"),
        ({"probation_percent": 101}, "probation_percent"),
        ({"max_demotions": 0}, "max_demotions"),
        ({"consecutive_5xx": 5}, "consecutive_5xx: unknown key"),
        ({"demotion_time_s": 600}, "max_demotion_time_s: must be at least demotion_time_s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(document: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidConfiguration, match=named):
        spec(document)


def test_policy_survives_json() -> None:
    policy = spec(parse_yaml(FILE, "file"))
    assert DemotionSpec.model_validate_json(policy.model_dump_json()) == policy
