"""Weighted choice by counting: nobody is ever far from its share."""

from collections import Counter
from fractions import Fraction
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from router.split import turns

WEIGHTS = st.one_of(st.integers(0, 100), st.floats(0, 1e6, allow_subnormal=False))
ARMS = st.lists(WEIGHTS, min_size=1, max_size=6).filter(lambda weights: sum(weights) > 0)


@settings(max_examples=100, deadline=None)
@given(weights=ARMS)
def test_count_of_each_arm_stays_close_to_its_share_all_the_time(weights: list[float]) -> None:
    total = sum(Fraction(str(weight)) for weight in weights)
    bound = max(sum(weight > 0 for weight in weights) - 1, 1)
    counts: Counter[int] = Counter()
    for n, arm in enumerate(islice(turns(list(enumerate(weights))), 200), 1):
        counts[arm] += 1
        for place, weight in enumerate(weights):
            assert abs(counts[place] - n * Fraction(str(weight)) / total) < bound


@given(weights=ARMS)
def test_arm_without_weight_never_has_a_turn(weights: list[float]) -> None:
    assert all(weights[arm] > 0 for arm in islice(turns(list(enumerate(weights))), 100))


def test_ten_per_cent_of_a_hundred_are_ten() -> None:
    for weights in ((0.9, 0.1), (9, 1), (90.0, 10.0), (9e-9, 1e-9), (9e12, 1e12)):
        first = Counter(islice(turns(list(zip("ab", weights, strict=True))), 100))
        assert first == {"a": 90, "b": 10}


def test_turns_are_spread_and_not_bunched() -> None:
    assert "".join(islice(turns([("a", 3), ("b", 1)]), 8)) == "aabaaaba"


def test_weight_too_small_to_notice_is_still_kept() -> None:
    assert Counter(islice(turns([("a", 1.0), ("b", 1e-4)]), 10_001))["b"] == 1
