"""Partial results become one: whatever parts a model yields."""

import numpy as np

from serving.partial_results import joined


def test_parts_are_joined_along_the_first_dimension() -> None:
    parts = [{"y": np.array([[1, 2]])}, {"y": np.array([[3, 4], [5, 6]])}]
    assert joined(parts)["y"].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_parts_that_are_single_numbers_are_rows() -> None:
    assert joined([{"y": np.array(1)}, {"y": np.array(2)}])["y"].tolist() == [1, 2]


def test_output_that_is_not_in_every_part_is_joined_from_those_that_have_it() -> None:
    parts = [{"y": np.array([1])}, {"y": np.array([2]), "z": np.array([7])}, {"z": np.array([8])}]
    assert {name: array.tolist() for name, array in joined(parts).items()} == {"y": [1, 2], "z": [7, 8]}


def test_no_parts_have_no_outputs() -> None:
    assert joined([]) == {}
