"""Retries, hedges and rescues stay within their share, whatever comes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.spec.retry import RetrySpec
from router.budget import CallBudget, RetryBudget


def test_retries_under_way_stay_a_fifth_of_the_requests_under_way() -> None:
    budget = RetryBudget(RetrySpec())
    assert sum(budget.take(100) for _ in range(50)) == 20
    assert (budget.retrying, budget.overflow) == (20, 30)
    budget.give_back()
    assert budget.take(100)
    assert not budget.take(100)


def test_a_quiet_route_may_retry_three_at_a_time() -> None:
    budget = RetryBudget(RetrySpec())
    assert [budget.take(1) for _ in range(4)] == [True, True, True, False]


def test_no_budget_means_no_retry() -> None:
    budget = RetryBudget(RetrySpec(budget_percent=0.0, min_retry_concurrency=0))
    assert not budget.take(1000)


@settings(deadline=None)
@given(wanted=st.lists(st.booleans(), max_size=400), percent=st.floats(0, 100), burst=st.integers(1, 50))
def test_extra_calls_never_exceed_their_share_at_any_moment(wanted: list[bool], percent: float, burst: int) -> None:
    budget = CallBudget(percent, burst)
    for calls, wants in enumerate(wanted, 1):
        if wants:
            budget.take(calls)
        assert budget.taken * 100 <= percent * calls * (1 + 1e-9)


def test_whole_share_is_used_when_everybody_wants_more() -> None:
    budget = CallBudget(5.0, burst=10)
    assert sum(budget.take(calls) for calls in range(1, 10_001)) == 500


@pytest.mark.parametrize("idle_calls", [1_000, 1_000_000])
def test_long_peace_does_not_pay_for_a_storm(idle_calls: int) -> None:
    budget = CallBudget(5.0, burst=10)
    assert sum(budget.take(idle_calls) for _ in range(100)) == 10


def test_first_extra_call_may_come_before_its_share_is_earned() -> None:
    budget = CallBudget(5.0, burst=10, start=2)
    assert [budget.take(1) for _ in range(3)] == [True, True, False]
