"""Sums: what is counted in two places is as if it had been counted in one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.moments import Moments

VALUES = st.lists(st.floats(-1e6, 1e6), max_size=30)
COUNTS = st.lists(st.integers(-1000, 1000).map(float), max_size=30)


def of(values: list[float]) -> Moments:
    moments = Moments()
    for value in values:
        moments = moments.observed(value)
    return moments


@given(COUNTS, COUNTS)
def test_two_gateways_sums_add_to_those_of_one(here: list[float], there: list[float]) -> None:
    assert of(here) + of(there) == of(here + there) == of(there) + of(here)


@given(VALUES)
def test_sums_survive_a_restart(values: list[float]) -> None:
    moments = of(values)
    assert Moments.from_json(json.loads(json.dumps(moments.to_json()))) == moments


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_mean_and_variance_are_those_of_the_values(values: list[float]) -> None:
    moments = of(values)
    assert moments.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert moments.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-5)


def test_a_spread_lost_in_rounding_is_none_rather_than_a_guess() -> None:
    assert of([1e9, 1e9 + 1, 1e9 + 2]).variance == 0
    assert of([7.1] * 1000).variance == 0


def test_without_observations_there_is_no_mean() -> None:
    assert np.isnan(Moments().mean)
    assert Moments().variance == 0
    assert of([3.0]).variance == 0
