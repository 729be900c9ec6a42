"""Bounds on quantiles that hold whatever the distribution."""

import math

import numpy as np
import pytest

from judging.quantiles import _lower_tail, _upper_tail, lower_bound, upper_bound
from nstarx.histogram import BUCKETS, bucket_of


def histogram(seconds: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for time in seconds:
        counts[bucket_of(int(time * 1e9))] += 1
    return counts


@pytest.mark.parametrize(("n", "p"), [(1, 0.01), (30, 0.01), (500, 0.01), (200, 0.5)])
def test_chances_are_those_of_the_binomial(n: int, p: float) -> None:
    exact = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    upper, lower = _upper_tail(n, p), _lower_tail(n, p)
    for k in range(0, len(upper), max(len(upper) // 10, 1)):
        assert upper[k] == pytest.approx(sum(exact[k:]), rel=1e-9)
        assert lower[k] == pytest.approx(sum(exact[: k + 1]), rel=1e-9)


def test_too_few_calls_say_nothing() -> None:
    assert lower_bound(histogram([]), 0.99, 0.001) is None
    assert lower_bound(histogram([1.0]), 0.99, 0.001) is None
    assert upper_bound(histogram([1.0] * 600), 0.99, 0.001) is None
    assert upper_bound(histogram([1.0] * 700), 0.99, 0.001) is not None


def test_bounds_enclose_the_quantile_and_close_in_with_more_calls() -> None:
    few, many = histogram([0.001] * 1980 + [0.1] * 20), histogram([0.001] * 198_000 + [0.1] * 2000)
    few_low, few_high = lower_bound(few, 0.995, 0.001), upper_bound(few, 0.995, 0.001)
    many_low, many_high = lower_bound(many, 0.995, 0.001), upper_bound(many, 0.995, 0.001)
    assert few_low is not None
    assert few_high is not None
    assert few_low < 0.002 < 0.1 < few_high
    assert many_low is not None
    assert many_high is not None
    assert 0.08 < many_low < 0.1 < many_high < 0.12


def test_times_too_long_for_the_histogram_have_no_upper_bound() -> None:
    counts = [0] * BUCKETS
    counts[-1] = 10_000
    assert upper_bound(counts, 0.99, 0.001) is None


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0])
def test_bounds_are_hardly_ever_wrong_whatever_the_distribution(spread: float) -> None:
    random, alpha, runs = np.random.default_rng(7), 0.05, 400
    true = 0.01 * math.exp(spread * 2.3263478740408408)
    wrong_low = wrong_high = 0
    for _ in range(runs):
        counts = histogram(list(0.01 * np.exp(spread * random.standard_normal(400))))
        low, high = lower_bound(counts, 0.99, alpha), upper_bound(counts, 0.99, alpha)
        wrong_low += low is not None and low > true
        wrong_high += high is not None and high < true
    assert wrong_low <= 1.5 * alpha * runs
    assert wrong_high <= 1.5 * alpha * runs
