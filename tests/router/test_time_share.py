"""Work that may take a share of the time, and no more."""

from hypothesis import given
from hypothesis import strategies as st

from router.time_share import TimeShare

MS = 1_000_000


def test_burst_is_there_at_first_and_comes_back_with_time() -> None:
    share = TimeShare(0.05, 5 * MS)
    assert share.left(1)
    share.spend(6 * MS)
    assert not share.left(1)
    assert not share.left(20 * MS)
    assert share.left(21 * MS)


def test_waiting_saves_no_more_than_the_burst() -> None:
    share = TimeShare(0.5, 5 * MS)
    share.left(1)
    assert share.left(10_000 * MS)
    share.spend(5 * MS)
    assert not share.left(10_000 * MS)


@given(st.lists(st.tuples(st.integers(1, 10 * MS), st.integers(1, 2 * MS)), min_size=1, max_size=200))
def test_whatever_is_asked_for_takes_no_more_than_the_share_and_one_piece(steps: list[tuple[int, int]]) -> None:
    share, now, spent, longest = TimeShare(0.05, 5 * MS), 1, 0, 0
    share.left(now)
    for wait, cost in steps:
        now += wait
        if share.left(now):
            share.spend(cost)
            spent, longest = spent + cost, max(longest, cost)
    assert spent <= 5 * MS + 0.05 * now + longest
