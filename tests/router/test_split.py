"""Weighted choice by counting: nobody is ever far from its share, and nobody can fall in step with the order."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.split import _places, turns

WEIGHTS = st.one_of(st.integers(0, 100), st.floats(0, 1e6, allow_subnormal=False))
ARMS = st.lists(WEIGHTS, min_size=1, max_size=9).filter(lambda weights: sum(weights) > 0)
SEEDS = st.integers(0, 1000)
SPLITS = [(90, 10), (50, 50), (0.6, 0.4), (99.9, 0.1), (1 / 3, 2 / 3), (1, 1, 1), (50, 20, 15, 10, 5), (1, 2, 3, 4, 5)]


def bound(arms: int) -> int:
    """How far a count may be from its share, as docs/decisions/0006 proves it."""
    return min(max(arms - 1, 1), 4)


def deviations(weights: Sequence[float], order: Iterator[int]) -> Iterator[Fraction]:
    """After each turn: how far the arm that is furthest from its share is from it."""
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    counts: Counter[int] = Counter()
    for n, arm in enumerate(order, 1):
        counts[arm] += 1
        yield max(abs(counts[place] - n * share) for place, share in enumerate(shares))


@settings(max_examples=100, deadline=None)
@given(weights=ARMS, seed=SEEDS)
def test_count_of_each_arm_stays_close_to_its_share_all_the_time(weights: list[float], seed: int) -> None:
    order = islice(turns(list(enumerate(weights)), seed), 300)
    assert max(deviations(weights, order)) < bound(sum(weight > 0 for weight in weights))


@pytest.mark.parametrize("weights", [(0.6, 0.4), (1 / 3, 2 / 3), (1 / 7, 0.1, 99.9)])
def test_a_long_run_is_as_exact_as_a_short_one(weights: Sequence[float]) -> None:
    order = turns(list(enumerate(weights)), 7)
    counts = Counter(islice(order, 1_000_000))
    for arm, weight in enumerate(weights):
        assert abs(counts[arm] - 1_000_000 * weight / sum(weights)) < bound(len(weights)) + 1e-6


@given(weights=ARMS)
def test_arm_without_weight_never_has_a_turn(weights: list[float]) -> None:
    assert all(weights[arm] > 0 for arm in islice(turns(list(enumerate(weights))), 100))


def test_ten_per_cent_of_a_hundred_are_ten() -> None:
    for weights in ((0.9, 0.1), (9, 1), (90.0, 10.0), (9e-9, 1e-9), (9e12, 1e12)):
        first = Counter(islice(turns(list(zip("ab", weights, strict=True))), 100))
        assert first == {"a": 90, "b": 10}


def test_weight_too_small_to_notice_is_still_kept() -> None:
    assert Counter(islice(turns([("a", 1.0), ("b", 1e-4)]), 10_001))["b"] == 1


def test_weights_at_the_ends_of_what_floats_can_say_stop_nothing() -> None:
    assert Counter(islice(turns([("a", 1.7e308), ("b", 5e-324), ("c", 1.7e308)]), 100)) == {"a": 50, "c": 50}
    assert Counter(islice(turns([("a", 1.0), ("b", 1e-17)]), 1000))["a"] >= 999


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    first, again, other = (list(islice(turns([("a", 9), ("b", 1)], seed), 100)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("weights", SPLITS)
def test_caller_of_any_period_gets_the_shares(weights: Sequence[float]) -> None:
    """Every k-th turn from every offset, over 60,000 turns: within 5 standard deviations of independent draws."""
    order = list(islice(turns(list(enumerate(weights)), 42), 60_000))
    for period in range(2, 51):
        for offset in range(period):
            mine = order[offset::period]
            counts = Counter(mine)
            for arm, weight in enumerate(weights):
                share = weight / sum(weights)
                assert abs(counts[arm] - share * len(mine)) < 5 * sqrt(share * (1 - share) * len(mine)) + 1


@pytest.mark.parametrize("weights", [(0.6, 0.4), (3, 2, 2), (5, 4, 3, 2, 1)])
def test_each_single_turn_falls_to_an_arm_with_the_chance_that_is_its_share(weights: Sequence[float]) -> None:
    """Shares of each of the first turns over 4,000 seeds: a stretch's borders leave no trace."""
    runs, total = 4000, sum(weights)
    orders = [list(islice(turns(list(enumerate(weights)), seed), 12)) for seed in range(runs)]
    for taken in zip(*orders, strict=True):
        counts = Counter(taken)
        for arm, weight in enumerate(weights):
            share = weight / total
            assert abs(counts[arm] - runs * share) < 4.5 * sqrt(runs * share * (1 - share))


class Extreme(Random):
    """Draws only what is next to the borders, where floats round."""

    def random(self) -> float:
        return (0.0, 1 - 2**-53, 2**-53, 0.5)[self.getrandbits(2)]


@given(weight=st.integers(1, 10**17), more=st.integers(0, 10**17), seed=SEEDS)
def test_rounding_at_the_borders_costs_no_turn(weight: int, more: int, seed: int) -> None:
    total = 2 * weight + more
    places = list(islice(_places(weight, total, Extreme(seed)), 50))
    assert places == sorted(set(places))
    assert all(stretch * total // weight <= place for stretch, place in enumerate(places))
    assert all(place * weight < (stretch + 1) * total for stretch, place in enumerate(places))
