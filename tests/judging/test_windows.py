"""Counters of gateways as windows over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.windows import (
    FIRST,
    INVALID_OUTPUT,
    KEPT,
    LOST_ANSWER,
    NO_CALLS,
    Counts,
    Failing,
    Window,
    Windows,
    is_failure,
)
from nstarx.histogram import BUCKETS, bucket_of

NUMBER = st.integers(0, 1000)
LATENCY = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER).map(lambda four: four * (BUCKETS // 4))
COUNTS = st.builds(Counts, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, LATENCY)
FAILING = st.lists(st.builds(Failing, st.floats(0, 1000), st.sampled_from("abc")), max_size=12).map(tuple)
SMALL = st.builds(Counts, NUMBER, NUMBER)
REPORT = st.tuples(SMALL, st.floats(0, 1000), FAILING)


def past(reports: list[tuple[Counts, float, tuple[Failing, ...]]]) -> Windows:
    windows = Windows.over(10.0)
    for counts, now, failing in reports:
        windows = windows.add(counts, now, failing)
    return windows


@pytest.mark.parametrize("status", [500, 502, 504, INVALID_OUTPUT, LOST_ANSWER])
def test_a_version_is_blamed_for_its_errors_timeouts_lost_answers_and_invalid_outputs(status: int) -> None:
    assert is_failure(status)


@pytest.mark.parametrize("status", [200, 304, 400, 404, 413, 429, 499, 501, 503])
def test_a_version_is_not_blamed_for_callers_that_are_wrong_or_gone_nor_for_overload(status: int) -> None:
    assert not is_failure(status)


def test_what_says_nothing_about_the_version_is_no_call_at_all() -> None:
    counts = Counts.of({200: 90, 400: 4, 429: 1, 499: 2, 503: 3, 500: 1, 504: 2, INVALID_OUTPUT: 3, LOST_ANSWER: 4})
    assert counts == Counts(calls=104, failures=10, timeouts=2, invalid=3, lost=4)


@given(COUNTS, COUNTS)
def test_difference_of_two_readings_is_what_came_between(before: Counts, new: Counts) -> None:
    assert (before + new).since(before) == new


def test_gateway_that_counts_from_zero_again_is_counted_from_zero() -> None:
    assert Counts(5, 1).since(Counts(100, 0)) == Counts(5, 1)


@given(COUNTS, COUNTS, COUNTS)
def test_counts_add_up_in_any_order(a: Counts, b: Counts, c: Counts) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + NO_CALLS == a


@given(st.lists(REPORT, max_size=3), st.lists(REPORT, max_size=3), st.lists(REPORT, max_size=3))
def test_windows_of_several_gateways_merge_in_any_order(a: list, b: list, c: list) -> None:  # type: ignore[type-arg]
    assert (past(a) + past(b)) + past(c) == past(a) + (past(b) + past(c))
    assert past(a) + past(b) == past(b) + past(a)
    assert past([*a, *b]) == past(a) + past(b)


@given(st.lists(REPORT, max_size=5).flatmap(lambda reports: st.tuples(st.just(reports), st.permutations(reports))))
def test_order_in_which_gateways_report_does_not_matter(orders: tuple[list, list]) -> None:  # type: ignore[type-arg]
    assert past(orders[0]) == past(orders[1])


def test_windows_slide() -> None:
    windows = past([(Counts(10, 1), 1.0, ()), (Counts(20, 2), 9.0, ()), (Counts(40, 4), 15.0, ())])
    assert windows.last(10.0, 15.0) == Window(9.0, Counts(60, 6))
    assert windows.last(2.0, 15.0) == Window(1.0, Counts(40, 4))
    assert windows.last(10.0, 40.0) == Window(10.0, NO_CALLS)


def test_a_window_has_two_halves() -> None:
    windows = past([(Counts(1), float(second), ()) for second in range(1, 21)])
    assert [windows.between(start, start + 10.0).counts.calls for start in (0.0, 10.0)] == [10, 10]


def test_what_is_too_old_is_forgotten() -> None:
    windows = Windows.over(10.0)
    for second in range(0, 600, 2):
        windows = windows.add(Counts(1), float(second))
    assert len(windows.buckets) == KEPT
    assert windows.last(1e6, 599.0).counts.calls == KEPT


def test_thin_traffic_is_looked_at_over_a_longer_time() -> None:
    windows = past([(Counts(1), float(second), ()) for second in range(0, 200, 4)])
    assert windows.reach(2, 10.0, 198.0) == 10.0
    assert windows.reach(20, 10.0, 198.0) == 80.0
    assert windows.reach(1000, 10.0, 198.0) == 200.0


def test_first_failed_calls_are_kept_and_no_more_than_ten() -> None:
    late = [Failing(3.0 + n, f"late {n}") for n in range(FIRST)]
    windows = past([(Counts(10, 10), 13.0, tuple(late)), (Counts(1, 1), 1.0, (Failing(1.0, "first"),))])
    kept = windows.last(20.0, 13.0).failing
    assert len(kept) == FIRST
    assert [call.id for call in kept[:2]] == ["first", "late 0"]


def test_windows_of_different_widths_are_not_merged() -> None:
    with pytest.raises(ValueError, match="2 s and 4 s can't be merged"):
        Windows.over(10.0) + Windows.over(20.0)


def test_latency_is_merged_too() -> None:
    latency = [0] * BUCKETS
    latency[bucket_of(1_000_000)] = 3
    counts = Counts.of({200: 3}, latency)
    assert sum((counts + counts).latency) == 6
