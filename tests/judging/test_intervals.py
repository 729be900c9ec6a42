"""Intervals, held against exact probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.intervals import latency_quantile, share
from nstarx.histogram import BUCKETS, bucket_of, quantile
from tests.serving.codec.strategies import patient


def coverage(p: float, of: int) -> tuple[float, float]:
    """(chance that the lower end is above p, chance that the upper end is below p), from the binomial distribution."""
    chances = [math.comb(of, count) * p**count * (1 - p) ** (of - count) for count in range(of + 1)]
    ends = [share(count, of) for count in range(of + 1)]
    above = math.fsum([chance for chance, (low, _) in zip(chances, ends, strict=True) if low > p])
    below = math.fsum([chance for chance, (_, high) in zip(chances, ends, strict=True) if high < p])
    return above, below


@pytest.mark.parametrize("p", [0.002, 0.01, 0.02, 0.05, 0.1, 0.3])
def test_upper_end_is_too_low_as_seldom_as_promised(p: float) -> None:
    """This end lets a shadow pass as ready."""
    _, below = coverage(p, 500)
    assert below < 0.03


@pytest.mark.parametrize("p", [0.02, 0.05, 0.1, 0.3])
def test_lower_end_is_too_high_as_seldom_as_promised_from_ten_on(p: float) -> None:
    above, _ = coverage(p, 500)
    assert above < 0.04


def test_known_values() -> None:
    assert share(0, 0) == (0.0, 1.0)
    assert share(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert share(0, 1000) == pytest.approx((0.0, 0.003827), abs=1e-6)
    assert share(1000, 1000) == pytest.approx((0.996173, 1.0), abs=1e-6)
    assert (share(0, 1000)[0], share(1000, 1000)[1]) == (0.0, 1.0)


@patient
@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_estimate_is_inside_and_all_are_shares(count: int, of: int) -> None:
    count = min(count, of)
    low, high = share(count, of)
    assert 0 <= low <= count / of <= high <= 1


@patient
@given(st.integers(1, 10_000), st.integers(0, 100))
def test_more_of_the_same_narrows_it(of: int, percent: int) -> None:
    count = of * percent // 100
    low, high = share(count, of)
    narrower, lower = share(100 * count, 100 * of)
    assert low <= narrower
    assert lower <= high


def latencies(*milliseconds: float) -> list[int]:
    counts = [0] * BUCKETS
    for ms in milliseconds:
        counts[bucket_of(int(ms * 1_000_000))] += 1
    return counts


def test_ends_are_quantiles_about_two_standard_errors_apart() -> None:
    counts = latencies(*range(1, 1001))
    interval = latency_quantile(counts, 0.5)
    assert interval is not None
    assert interval == pytest.approx((quantile(counts, 0.469), quantile(counts, 0.531)), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_interval_holds_the_true_quantile_as_often_as_promised(seed: int) -> None:
    """Exponential latencies of 10 ms, whose p90 is 23 ms: buckets are coarser than the interval."""
    random = np.random.default_rng(seed)
    true = 0.010 * math.log(10)
    missed = 0
    for sample in random.exponential(10, (300, 2000)):
        interval = latency_quantile(latencies(*sample), 0.9)
        assert interval is not None
        missed += not interval[0] <= true <= interval[1]
    assert missed <= 30


def test_too_few_observations_have_no_interval() -> None:
    assert latency_quantile(latencies(), 0.99) is None
    assert latency_quantile(latencies(*[1] * 300), 0.99) is None
    assert latency_quantile(latencies(*[1] * 400), 0.99) is not None
