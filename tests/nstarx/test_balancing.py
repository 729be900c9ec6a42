"""What a balancing document may say."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.balancing import BalancingSpec
from nstarx.spec.record import parse


def test_nothing_said_means_least_request_and_ejection() -> None:
    spec = parse(BalancingSpec, {}, "balancing")
    assert (spec.policy, spec.slow_start_s) == ("least_request", 0)
    assert spec.ejection
    assert (spec.ejection.consecutive_failures, spec.ejection.base_ejection_time_s) == (5, 30)


def test_whole_numbers_may_stand_for_times_and_shares() -> None:
    spec = parse(BalancingSpec, {"slow_start_s": 30, "ejection": {"interval_s": 5, "latency_outlier": None}}, "b")
    assert spec.slow_start_s == 30
    assert spec.ejection
    assert spec.ejection.latency_outlier is None


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"hash_balance_factor": 99}, "hash_balance_factor"),
        ({"panic_threshold_percent": 101}, "panic_threshold_percent"),
        ({"slow_start_s": float("inf")}, "slow_start_s"),
        ({"ejection": {"consecutive_5xx": 5}}, "ejection.consecutive_5xx: unknown key"),
        ({"ejection": {"latency_outlier": {"factor": 1}}}, "ejection.latency_outlier.factor"),
        ({"policy": "random"}, "policy"),
        ({"key": {"header": "x-user"}}, "key: means nothing without policy ring_hash"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(document: Any, field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=field):
        parse(BalancingSpec, document, "balancing")
