"""Pace: long runs leave the loop, short ones come back, and one odd run among many moves nothing."""

from hypothesis import given
from hypothesis import strategies as st

from serving.pace import LEAVE, LONG_NS, RETURN, SHORT_NS, Pace

SHORT, LONG, VERY_LONG = SHORT_NS, SHORT_NS + 1, LONG_NS + 1


def paced(*runs: int, on_loop: bool = True) -> Pace:
    pace = Pace()
    pace.on_loop = on_loop
    for run in runs:
        pace.note(run)
    return pace


def test_first_run_leaves_the_loop_because_nobody_knows_how_long_it_takes() -> None:
    assert not Pace().on_loop


def test_short_runs_come_to_the_loop() -> None:
    assert not paced(*[SHORT] * (RETURN - 1), on_loop=False).on_loop
    assert paced(*[SHORT] * RETURN, on_loop=False).on_loop


def test_long_runs_leave_the_loop() -> None:
    assert paced(*[LONG] * (LEAVE - 1)).on_loop
    assert not paced(*[LONG] * LEAVE).on_loop


def test_one_very_long_run_leaves_the_loop_at_once() -> None:
    assert not paced(VERY_LONG).on_loop


def test_a_long_run_now_and_then_moves_nothing() -> None:
    assert paced(*[LONG, SHORT] * 1000).on_loop
    assert paced(*[LONG, LONG, SHORT, SHORT] * 1000).on_loop


def test_a_short_run_now_and_then_brings_nothing_back() -> None:
    assert not paced(*[SHORT, LONG] * 1000, on_loop=False).on_loop


def test_more_long_runs_than_short_ones_leave_in_the_end() -> None:
    assert not paced(*[LONG, LONG, SHORT] * LEAVE).on_loop


def test_very_long_runs_in_a_thread_stay_there() -> None:
    assert not paced(*[VERY_LONG] * 1000, on_loop=False).on_loop


def test_coming_back_begins_from_the_start() -> None:
    pace = paced(*[LONG] * LEAVE)
    for _ in range(RETURN):
        assert not pace.on_loop
        pace.note(SHORT)
    assert pace.on_loop


@given(st.lists(st.integers(0, 2 * LONG_NS), max_size=200))
def test_no_very_long_run_is_followed_by_one_on_the_loop(runs: list[int]) -> None:
    pace = Pace()
    for run in runs:
        pace.note(run)
        assert not (run > LONG_NS and pace.on_loop)
