"""Differences of elements: their meaning, and that few and many are measured alike."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from judging import array_differences, differences
from judging.differences import Classes, Numbers
from nstarx.tensors import DTYPES, Tensor
from tests.serving.codec.strategies import elements, patient

NUMERIC = sorted(set(DTYPES) - {"BYTES"})
bounds = st.sampled_from([0.0, 1e-4, 0.5, 3.0])


@st.composite
def twins(draw: st.DrawFn, datatype: str) -> tuple[Tensor, Tensor]:
    """Two tensors of one shape that agree here and there."""
    count = draw(st.integers(0, 6))
    left = draw(st.lists(elements(datatype, json=False), min_size=count, max_size=count))
    right = [draw(elements(datatype, json=False)) if draw(st.booleans()) else element for element in left]
    with np.errstate(over="ignore"):
        return np.array(left, DTYPES[datatype]), np.array(right, DTYPES[datatype])


def listed(array: Tensor) -> list[Any]:
    return list(array.astype(np.float32).tolist() if array.dtype == DTYPES["BF16"] else array.tolist())


@patient
@given(st.data(), st.sampled_from(NUMERIC), bounds, bounds)
def test_few_and_many_are_measured_alike(
    data: st.DataObject, datatype: str, max_absolute: float, max_relative: float
) -> None:
    a, b = data.draw(twins(datatype))
    few = differences.numbers(listed(a), listed(b), max_absolute, max_relative)
    many = array_differences.numbers(a, b, max_absolute, max_relative)
    assert (few.beyond, few.not_finite) == (many.beyond, many.not_finite)
    assert few == pytest.approx(many, rel=1e-12)
    assert all(map(math.isfinite, few))
    assert 0 <= few.severity <= 1
    assert 0 <= few.mean_relative <= few.max_relative <= 2


@patient
@given(st.data(), st.sampled_from(NUMERIC), bounds)
def test_numbers_do_not_depend_on_who_is_first(data: st.DataObject, datatype: str, bound: float) -> None:
    a, b = data.draw(twins(datatype))
    assert array_differences.numbers(a, b, bound, bound) == array_differences.numbers(b, a, bound, bound)
    assert differences.numbers(listed(a), listed(b), bound, bound) == differences.numbers(
        listed(b), listed(a), bound, bound
    )


@patient
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 4)), elements=st.floats(width=32)), st.data()
)
def test_classes_of_few_and_many_are_the_same(a: Tensor, data: st.DataObject) -> None:
    b = a.copy()
    for index in np.ndindex(a.shape):
        if data.draw(st.booleans()):
            b[index] = data.draw(st.floats(width=32))
    width = a.shape[1]
    flat, other = a.ravel().tolist(), b.ravel().tolist()
    assert differences.classes(flat, other, width) == array_differences.classes(a, b, width)
    assert differences.classes(flat, flat, width).confusion == {}


def test_numbers_of_two_pairs_worked_out_by_hand() -> None:
    found = differences.numbers([1.0, 4.0, 0.0], [1.0, 5.0, 0.001], max_absolute=0.01, max_relative=0.1)
    expected = Numbers(1, 0, 1.0, 1.001 / 3, 1.0, 1.2 / 3, severity=1 / 5.01 / 2)
    assert found == pytest.approx(expected)


def test_either_bound_is_enough_and_both_include_their_edge() -> None:
    def beyond(x: float, y: float, max_absolute: float, max_relative: float) -> int:
        return differences.numbers([x], [y], max_absolute, max_relative).beyond

    assert beyond(1.0, 1.5, 0.5, 0.0) == 0
    assert beyond(1.0, 1.5, 0.4999, 0.0) == 1
    assert beyond(3.0, 4.0, 0.0, 0.25) == 0
    assert beyond(3.0, 4.0, 0.0, 0.2499) == 1
    assert beyond(0.0, 1e-9, 1e-6, 0.0) == 0
    assert beyond(0.0, 1e-9, 0.0, 0.5) == 1


def test_nan_and_infinities_equal_themselves_and_nothing_else() -> None:
    nan, inf = math.nan, math.inf
    assert differences.numbers([nan, inf, -inf], [nan, inf, -inf], 0, 0) == Numbers()
    for x, y in ((nan, 1.0), (inf, 1.0), (inf, -inf), (nan, inf)):
        found = differences.numbers([x, 2.0], [y, 3.0], 100, 100)
        assert (found.beyond, found.not_finite, found.severity) == (1, 1, 1.0)
        assert (found.max_absolute, found.mean_absolute) == (1.0, 1.0)


def test_large_integers_that_floats_take_for_equal_are_told_apart() -> None:
    a, b = np.array([2**62, -(2**63)]), np.array([2**62 + 1, 2**63 - 1])
    for found in (
        array_differences.numbers(a, b, 0, 0),
        differences.numbers(a.tolist(), b.tolist(), 0, 0),
    ):
        assert found.beyond == 2
        assert found.max_absolute == 2.0**64
    assert array_differences.numbers(a[:1], b[:1], 0, 0).max_absolute == 1.0


def test_differences_as_large_as_floats_go_stay_numbers() -> None:
    large = np.array([1.7e308, 1.7e308])
    assert array_differences.numbers(large, np.zeros(2), 0, 0).mean_absolute == 1.7e308
    assert array_differences.numbers(large, -large, 0, 0).not_finite == 2


def test_scores_name_the_class_that_is_greatest() -> None:
    found = differences.classes([0.1, 0.7, 0.2, 0.5, 0.4, 0.1], [0.6, 0.3, 0.1, 0.9, 0.1, 0.0], width=3)
    assert found == Classes(2, {("1", "0"): 1})


def test_row_of_scores_with_nan_has_no_class() -> None:
    nan = math.nan
    assert differences.classes([nan, 1.0], [nan, 2.0], width=2).confusion == {}
    assert differences.classes([0.0, nan], [0.0, 1.0], width=2).confusion == {("nan", "1"): 1}


def test_labels_are_counted_by_pair() -> None:
    assert differences.classes([1, 2, 2, 2], [1, 3, 3, 1], width=1) == Classes(4, {("2", "3"): 2, ("2", "1"): 1})
    assert differences.classes(["a" * 99], [b"b"], width=1).confusion == {("a" * 64, "b"): 1}


def test_texts_are_equal_or_not() -> None:
    assert differences.texts(["a", "b"], ["a", "c"]) == 1
    assert array_differences.texts(np.array([b"a", b"b"], object), np.array([b"a", b"b"], object)) == 0
