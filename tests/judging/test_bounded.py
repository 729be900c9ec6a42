"""Counters whose keys outsiders choose."""

from operator import add

from hypothesis import given
from hypothesis import strategies as st

from judging.bounded import OTHER, count, merge
from tests.serving.codec.strategies import patient

LIMIT = 3
observations = st.lists(st.text("ab", max_size=3), max_size=20)


def counted(keys: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        count(counts, key, 1, LIMIT, add)
    return counts


def both(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    total = dict(one)
    merge(total, other, LIMIT, add)
    return total


@patient
@given(observations, observations, observations)
def test_merging_gives_what_one_counter_would_have(a: list[str], b: list[str], c: list[str]) -> None:
    whole = counted(a + b + c)
    assert both(counted(a), counted(b)) == both(counted(b), counted(a)) == counted(a + b)
    assert both(both(counted(a), counted(b)), counted(c)) == whole
    assert both(counted(a), both(counted(b), counted(c))) == whole


@patient
@given(observations)
def test_nothing_is_lost_and_what_is_kept_is_exact(keys: list[str]) -> None:
    counts = counted(keys)
    assert sum(counts.values()) == len(keys)
    assert len(counts) <= LIMIT + 1
    assert all(counts[key] == keys.count(key) for key in counts if key != OTHER)


def test_short_values_are_kept_before_long_ones() -> None:
    keys = ["7c9e6679-7425", "web", "ios", "web", "0aa1-beef", "android"]
    assert counted(keys) == {"web": 2, "ios": 1, "android": 1, OTHER: 2}
