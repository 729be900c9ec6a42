"""Confidence sequences: the promised error rate though everybody looks at every observation."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judging.confidence import (
    MIN_OBSERVATIONS,
    Limits,
    Sample,
    asymptotic_difference,
    asymptotic_difference_adaptive,
    asymptotic_mean,
    bounded_difference,
    bounded_mean,
    difference_limits,
    mean_limits,
)
from judging.moments import Moments
from nstarx.spec.experiment import MetricSpec

RUNS, ALPHA = 2000, 0.05
PROMISED = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
"""Wrong runs of RUNS that chance allows a procedure that errs with probability ALPHA, as a share."""

Draws = npt.NDArray[np.float64]


def running(values: Draws, of: Any = None) -> Sample:
    """The sample after each observation, one row a run; `of` marks the observations that belong to the arm."""
    mine = np.ones_like(values) if of is None else of.astype(float)
    n = np.maximum(mine.cumsum(axis=1), 1e-9)
    mean = (values * mine).cumsum(axis=1) / n
    spread = (values**2 * mine).cumsum(axis=1) / n - mean**2
    return Sample(n, mean, np.maximum(spread, 0) * n / np.maximum(n - 1, 1))


def ever_outside(limits: Limits, truth: float) -> float:
    """Share of runs in which the truth lay outside the interval at least once."""
    low, high = limits
    return float(np.mean(np.any((low > truth) | (high < truth), axis=1)))


def on_distinct(limits: Callable[..., Limits], *columns: Draws) -> Limits:
    """The limits of many counts, computed once for those that are equal."""
    states, back = np.unique(np.stack([column.ravel() for column in columns]), axis=1, return_inverse=True)
    low, high = limits(*states)
    shape = columns[0].shape
    return np.asarray(low)[back].reshape(shape), np.asarray(high)[back].reshape(shape)


def counts(rng: np.random.Generator, rate: float, steps: int) -> Draws:
    return (rng.random((RUNS, steps)) < rate).cumsum(axis=1).astype(float)


@pytest.mark.parametrize("rate", [0.02, 0.5])
def test_equal_conversion_rates_are_rarely_told_apart_though_read_after_every_pair(rate: float) -> None:
    rng, steps = np.random.default_rng(1), 120
    n = np.broadcast_to(np.arange(1.0, steps + 1), (RUNS, steps))
    limits = on_distinct(
        lambda n, a, b: bounded_difference(Sample(n, a / n), Sample(n, b / n), ALPHA),
        n,
        counts(rng, rate, steps),
        counts(rng, rate, steps),
    )
    assert ever_outside(limits, 0.0) <= ALPHA


@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_the_conversion_rate_of_an_arm_stays_in_its_interval(rate: float) -> None:
    rng, steps = np.random.default_rng(2), 250
    n = np.broadcast_to(np.arange(1.0, steps + 1), (RUNS, steps))
    limits = on_distinct(lambda n, total: bounded_mean(Sample(n, total / n), ALPHA), n, counts(rng, rate, steps))
    assert 0 < ever_outside(limits, rate) <= PROMISED


def test_values_between_the_bounds_are_covered_as_zeros_and_ones_are() -> None:
    sample = running(np.random.default_rng(3).beta(0.1, 0.3, (500, 200)))
    assert ever_outside(bounded_mean(sample, ALPHA), 0.25) <= ALPHA


def normal(rng: np.random.Generator, steps: int) -> Draws:
    return rng.normal(3, 2, (RUNS, steps))


def skewed(rng: np.random.Generator, steps: int) -> Draws:
    return rng.exponential(2, (RUNS, steps))


def purchases(rng: np.random.Generator, steps: int) -> Draws:
    """One caller in twenty buys something."""
    return (rng.random((RUNS, steps)) < 0.05) * rng.lognormal(0, 0.5, (RUNS, steps))


@pytest.mark.parametrize("draw", [normal, skewed, purchases])
def test_equal_means_are_rarely_told_apart_though_the_usual_interval_would(
    draw: Callable[[np.random.Generator, int], Draws],
) -> None:
    rng, steps = np.random.default_rng(4), 1000
    control, arm = running(draw(rng, steps)), running(draw(rng, steps))
    usual = 1.96 * np.sqrt((control.variance + arm.variance) / control.n)
    difference = np.where(control.n >= MIN_OBSERVATIONS, arm.mean - control.mean, 0.0)
    assert ever_outside((difference - usual, difference + usual), 0.0) > 2 * PROMISED
    assert ever_outside(asymptotic_difference(control, arm, ALPHA), 0.0) <= PROMISED


@pytest.mark.parametrize("draw", [normal, skewed])
def test_the_mean_of_an_arm_stays_in_its_interval(draw: Callable[[np.random.Generator, int], Draws]) -> None:
    sample = running(draw(np.random.default_rng(5), 2000))
    assert 0 < ever_outside(asymptotic_mean(sample, ALPHA), 3.0 if draw is normal else 2.0) <= PROMISED


def test_equal_means_are_rarely_told_apart_though_a_small_arm_is_widened_midway() -> None:
    rng, steps = np.random.default_rng(6), 1200
    values, ramp = skewed(rng, steps), np.where(np.arange(steps) < 900, 0.15, 0.6)
    mine = rng.random((RUNS, steps)) < ramp
    limits = asymptotic_difference(running(values, ~mine), running(values, mine), ALPHA)
    assert ever_outside(limits, 0.0) <= PROMISED


@pytest.mark.parametrize("method", [asymptotic_difference_adaptive, bounded_difference])
def test_equal_arms_are_rarely_told_apart_though_the_weights_follow_the_outcomes(
    method: Callable[[Sample, Sample, float], Limits],
) -> None:
    """The arm that is behind hardly gets any more callers, so that its bad luck lasts."""
    rng, wrong = np.random.default_rng(7), np.zeros(RUNS, dtype=bool)
    n, total = np.full((2, RUNS), 100.0), rng.binomial(100, 0.3, (2, RUNS)).astype(float)
    for _ in range(40):
        ahead = (total[1] / n[1] > total[0] / n[0]).astype(int)
        for arm, size in ((ahead, 38), (1 - ahead, 2)):
            total[arm, np.arange(RUNS)] += rng.binomial(size, 0.3, RUNS)
            n[arm, np.arange(RUNS)] += size
        mean = total / n
        samples = [Sample(n[arm], mean[arm], mean[arm] * (1 - mean[arm])) for arm in (0, 1)]
        low, high = method(samples[0], samples[1], ALPHA)
        wrong |= (low > 0) | (high < 0)
    assert np.mean(wrong) <= ALPHA


@pytest.mark.parametrize(
    ("method", "wider"),
    [(asymptotic_difference, 1.6), (asymptotic_difference_adaptive, 1.8), (bounded_difference, 2.6)],
)
def test_looking_often_costs_a_bounded_part_of_the_width(
    method: Callable[[Sample, Sample, float], Limits], wider: float
) -> None:
    control, arm = Sample(5000.0, 0.2, 0.16), Sample(5000.0, 0.25, 0.1875)
    low, high = method(control, arm, ALPHA)
    usual = 2 * 1.96 * math.sqrt((control.variance + arm.variance) / 5000)
    assert usual < high - low < wider * usual


TALLY = st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


def sample(tally: tuple[int, int]) -> Sample:
    n, hits = tally
    return Sample(float(n), hits / n if n else 0.0)


@given(TALLY, TALLY)
@settings(deadline=None, max_examples=50)
def test_the_interval_of_a_difference_holds_what_was_seen_and_mirrors_when_arms_or_outcomes_swap(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    a, b = sample(one), sample(other)
    low, high = bounded_difference(a, b, ALPHA)
    assert -1 <= low <= high <= 1
    if a.n and b.n:
        assert low <= b.mean - a.mean <= high
    assert bounded_difference(b, a, ALPHA) == pytest.approx((-high, -low), abs=1e-9)
    lost_a, lost_b = (tally._replace(mean=1 - tally.mean) for tally in (a, b))
    assert bounded_difference(lost_b, lost_a, ALPHA) == pytest.approx((low, high), abs=1e-6)


@given(TALLY.filter(lambda tally: tally[0] > 0), TALLY.filter(lambda tally: tally[0] > 0))
@settings(deadline=None, max_examples=30)
def test_the_interval_of_a_difference_is_that_of_a_search_over_all_pairs_of_rates(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    grid = np.clip(np.sin(np.linspace(0, math.pi / 2, 1000)) ** 2, 1e-12, 1 - 1e-12)  # Dense at both ends.
    against = [evidence_against(grid, *tally) for tally in (one, other)]
    inside = against[0][:, None] + against[1][None, :] < math.log(1 / ALPHA)
    apart = (grid[None, :] - grid[:, None])[inside]
    found = bounded_difference(sample(one), sample(other), ALPHA)
    assert found == pytest.approx((apart.min(), apart.max()), abs=0.004)


def evidence_against(rate: Draws, n: int, hits: int) -> Any:
    """Log of the Beta(1/2, 1/2) mixture's likelihood over that of a rate."""
    mixture = math.lgamma(hits + 0.5) + math.lgamma(n - hits + 0.5) - math.lgamma(n + 1) - math.log(math.pi)
    return mixture - hits * np.log(rate) - (n - hits) * np.log(1 - rate)


def test_too_few_or_equal_outcomes_leave_an_asymptotic_interval_unbounded() -> None:
    enough, few, flat = Sample(100.0, 1.0, 1.0), Sample(99.0, 1.0, 1.0), Sample(1e6, 0.0, 0.0)
    for method in (asymptotic_difference, asymptotic_difference_adaptive):
        assert method(enough, few, ALPHA) == (-math.inf, math.inf)
        assert method(flat, enough, ALPHA) == (-math.inf, math.inf)
        assert np.isfinite(method(enough, enough, ALPHA)[1])
    assert asymptotic_mean(Sample(0.0, math.nan), ALPHA) == (-math.inf, math.inf)


def metric(kind: Literal["binary", "bounded", "continuous"], **more: Any) -> MetricSpec:
    return MetricSpec(metric="score", kind=kind, direction="increase", **more)


def test_a_bounded_metric_is_judged_on_its_own_scale() -> None:
    zeros_and_ones, stars = (Moments(200, 60.0, 60.0), Moments(200, 90.0, 90.0)), (
        Moments(200, 200 + 4 * 60.0, 0.0),
        Moments(200, 200 + 4 * 90.0, 0.0),
    )  # fmt: skip
    low, high = difference(metric("binary"), *zeros_and_ones)
    assert difference(metric("bounded", range=(1.0, 5.0)), *stars, adaptive=True) == pytest.approx((4 * low, 4 * high))
    [(low, high), _] = mean_limits(metric("binary"), zeros_and_ones, ALPHA)
    [found, _] = mean_limits(metric("bounded", range=(1.0, 5.0)), stars, ALPHA)
    assert found == pytest.approx((1 + 4 * low, 1 + 4 * high))


def difference(of: MetricSpec, control: Moments, arm: Moments, adaptive: bool = False) -> tuple[float, float]:
    [limits] = difference_limits(of, control, [arm], ALPHA, adaptive=adaptive)
    return limits


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_many_arms_at_once_are_judged_as_one_by_one(kind: Literal["binary", "continuous"]) -> None:
    control = Moments(400, 100.0, 100.0)
    arms = [Moments(400, 160.0, 160.0), Moments(), Moments(300, 50.0, 50.0)]
    assert difference_limits(metric(kind), control, arms, ALPHA, adaptive=True) == [
        pytest.approx(difference(metric(kind), control, arm, adaptive=True)) for arm in arms
    ]


def test_without_outcomes_a_bounded_metric_can_be_anything_it_may_be() -> None:
    assert mean_limits(metric("bounded", range=(1.0, 5.0)), [Moments()], ALPHA) == [pytest.approx((1, 5))]
    assert difference(metric("binary"), Moments(), Moments()) == pytest.approx((-1, 1))


def test_weights_that_follow_outcomes_widen_a_continuous_interval() -> None:
    arms = Moments(1000, 0.0, 1000.0), Moments(1000, 100.0, 1000.0)
    steady = difference(metric("continuous"), *arms)
    moving = difference(metric("continuous"), *arms, adaptive=True)
    assert moving[0] < steady[0] < steady[1] < moving[1]
