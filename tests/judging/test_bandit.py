"""Thompson sampling: weight follows the outcomes, and never leaves an arm."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judging.bandit import shares
from judging.moments import Moments
from nstarx.spec.experiment import MetricSpec

Kind = Literal["binary", "bounded", "continuous"]


def metric(kind: Kind, direction: Literal["increase", "decrease"] = "increase", **more: Any) -> MetricSpec:
    return MetricSpec(metric="score", kind=kind, direction=direction, **more)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def of(values: Any) -> Moments:
    return Moments(len(values), float(np.sum(values)), float(np.sum(np.square(values))))


ARM = st.lists(st.floats(0, 1), max_size=20).map(of)


@given(st.lists(ARM, min_size=2, max_size=6), st.sampled_from(["binary", "continuous"]), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_shares_come_to_one_and_keep_their_floor(arms: list[Moments], kind: Kind, part: float) -> None:
    floor = part / len(arms)
    found = shares(metric(kind), {str(place): arm for place, arm in enumerate(arms)}, floor, rng())
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) >= floor
    assert list(found) == [str(place) for place in range(len(arms))]


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_arms_without_outcomes_share_alike(kind: Kind) -> None:
    found = shares(metric(kind), {"a": Moments(), "b": Moments(), "c": Moments()}, 0.0, rng())
    assert found == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=0.03)


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_arms_with_equal_outcomes_share_alike(kind: Kind) -> None:
    arm = of([1.0] * 500)
    assert shares(metric(kind), {"a": arm, "b": arm}, 0.0, rng()) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.03)


def test_the_same_seed_gives_the_same_shares() -> None:
    arms = {"a": of([0, 1, 1]), "b": of([0, 0, 1])}
    assert shares(metric("binary"), arms, 0.05, rng()) == shares(metric("binary"), arms, 0.05, rng())


def test_where_less_is_better_the_lower_arm_gets_the_weight() -> None:
    slow, fast = of([12.0, 13.0, 11.0] * 50), of([9.0, 10.0, 11.0] * 50)
    found = shares(metric("continuous", "decrease"), {"slow": slow, "fast": fast}, 0.1, rng())
    assert found == {"slow": 0.1, "fast": 0.9}


def test_a_bounded_metric_counts_on_its_own_scale() -> None:
    stars = metric("bounded", range=(1.0, 5.0))
    found = shares(stars, {"a": Moments(400, 1600.0, 0.0), "b": Moments(400, 1000.0, 0.0)}, 0.05, rng())
    assert found["a"] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("kind", "means"), [("binary", [0.10, 0.13, 0.10]), ("continuous", [5.0, 5.3, 5.0])], ids=["binary", "continuous"]
)
def test_weight_gathers_on_the_best_arm(kind: Kind, means: list[float]) -> None:
    chance, weights, moments = rng(), [1 / 3] * 3, [Moments()] * 3
    for _ in range(60):
        for arm, n in enumerate(chance.multinomial(300, weights)):
            binary = kind == "binary"
            moments[arm] += of(chance.binomial(1, means[arm], n) if binary else chance.normal(means[arm], 2, n))
        weights = list(shares(metric(kind), dict(zip("abc", moments, strict=True)), 0.05, chance).values())
    assert weights[1] > 0.85
    assert min(weights) >= 0.05
    assert moments[1].n > sum(arm.n for arm in moments) / 2
