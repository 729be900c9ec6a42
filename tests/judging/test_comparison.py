"""Two answers to one request."""

import gzip
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.answers import Answer
from judging.comparison import Comparison, Kind, Outcome, compare, compare_statuses, same_outputs
from judging.differences import Classes, Numbers
from nstarx.spec.shadow import ToleranceSpec
from serving.codec import Codec
from tests.judging.shadows import CLASSES, answer, failed, iris, shadow
from tests.judging.test_answers import replica_answer
from tests.serving.codec.samples import body, x
from tests.serving.codec.samples import iris as iris_model
from tests.serving.codec.strategies import datatypes, patient, tensors

SPEC = shadow()


def kinds(comparison: Comparison) -> list[tuple[str, Kind, bool]]:
    return [(difference.output, difference.kind, difference.equal) for difference in comparison.differences]


def numbers(comparison: Comparison) -> Numbers:
    (difference,) = comparison.differences
    assert isinstance(difference.found, Numbers)
    return difference.found


# Answers that agree


@patient
@given(st.data(), datatypes, st.booleans(), st.booleans())
def test_answer_equals_itself(data: st.DataObject, datatype: str, binary: bool, as_classes: bool) -> None:
    made = replica_answer(datatype, data.draw(tensors(datatype, json=not binary)), binary)
    spec = shadow(tolerance=ToleranceSpec(classes=as_classes))
    assert compare(made, made, spec) == Comparison(Outcome.compared)
    spaced = made._replace(body=made.body.replace(b'"outputs":[', b'"outputs": [', 1))
    if made.json_length is not None:
        spaced = spaced._replace(json_length=made.json_length + 1)
    assert not same_outputs(made, spaced)
    assert compare(made, spaced, spec).equal


def test_versions_ids_and_names_do_not_count() -> None:
    old = Answer(200, b'{"model_name":"iris","model_version":"1.0.0","id":"7","outputs":[{"name":"y","data":"?"}]}')
    new = Answer(200, b'{"model_name":"flower","model_version":"1.0.10-rc.1","outputs":[{"name":"y","data":"?"}]}')
    assert same_outputs(old, new)
    assert compare(old, new, SPEC) == Comparison(Outcome.compared)


def test_id_that_looks_like_outputs_does_not_hide_a_difference() -> None:
    def made(label: int) -> Answer:
        codec = Codec(iris_model())
        request = codec.decode(body(x(), id='","outputs":['))
        outputs = {"label": np.array([label]), "probabilities": np.zeros((1, 3), np.float32)}
        (encoded,) = codec.encode([request], outputs)
        return Answer(200, encoded.body)

    assert same_outputs(made(1), made(1))
    assert not compare(made(1), made(2), SPEC).equal


def test_equal_bytes_cut_differently_are_not_taken_for_equal() -> None:
    assert not same_outputs(Answer(200, b'{"outputs":[]}', 14), Answer(200, b'{"outputs":[]}', None))
    assert not same_outputs(Answer(200, b'{"a":1,"outputs":[]}', 20), Answer(200, b'{"outputs":[]}', None))
    assert same_outputs(Answer(200, b'{"a":1,"outputs":[]}', 20), Answer(200, b'{"outputs":[]}', 14))


def test_order_of_outputs_does_not_count() -> None:
    assert compare(answer(a=[1], b=[2]), answer(b=[2], a=[1]), SPEC).differences == ()


def test_compressed_answer_is_compared_too() -> None:
    one, other = iris(1), iris(2)
    squeezed = one._replace(body=gzip.compress(one.body))
    assert compare(squeezed, one, SPEC).equal
    assert kinds(compare(squeezed, other, SPEC)) == [("label", Kind.numbers, False)]


def test_nan_on_both_sides_is_equal_and_on_one_side_is_not() -> None:
    nan = float("nan")
    assert compare(answer(y=[nan, 1.0]), answer(y=[nan, 1.00001]), SPEC).equal
    one_sided = compare(answer(y=[nan, 1.0]), answer(y=[0.5, 1.0]), SPEC)
    assert not one_sided.equal
    assert numbers(one_sided).not_finite == 1


# Answers that differ


def test_numbers_within_tolerance_are_equal_and_measured() -> None:
    found = compare(iris(scores=(0.5, 0.25, 0.25)), iris(scores=(0.500031, 0.25, 0.249969)), SPEC)
    assert found.equal
    assert numbers(found).max_absolute == pytest.approx(3.1e-5, rel=1e-3)
    assert 0 < found.distance < 1


@pytest.mark.parametrize(("shift", "equal"), [(0.25, True), (0.2500001, False)])
def test_edge_of_the_tolerance_belongs_to_it(shift: float, equal: bool) -> None:
    spec = shadow(tolerances={"y": ToleranceSpec(max_absolute=0.25)})
    assert compare(answer(y=np.array([1.0])), answer(y=np.array([1 + shift])), spec).equal is equal


def test_integers_have_no_leeway_unless_they_are_given_some() -> None:
    one, other = answer(count=[100_000]), answer(count=[100_001])
    assert not compare(one, other, SPEC).equal
    assert compare(one, other, shadow(tolerances={"count": ToleranceSpec(max_absolute=1)})).equal


def test_tolerance_is_each_outputs_own() -> None:
    spec = shadow(tolerances={"a": ToleranceSpec(max_absolute=1)}, tolerance=ToleranceSpec(max_absolute=0))
    found = compare(answer(a=[1.0], b=[1.0]), answer(a=[1.5], b=[1.5]), spec)
    assert kinds(found) == [("a", Kind.numbers, True), ("b", Kind.numbers, False)]


def test_labels_and_scores_agree_as_classes() -> None:
    spec = shadow(tolerance=CLASSES)
    assert compare(iris(0, (0.75, 0.25, 0.0)), iris(0, (0.5, 0.25, 0.25)), spec).equal
    found = compare(iris(0, (0.75, 0.25, 0.0)), iris(1, (0.25, 0.75, 0.0)), spec)
    assert kinds(found) == [("label", Kind.classes, False), ("probabilities", Kind.classes, False)]
    assert [difference.found for difference in found.differences] == [Classes(1, {("0", "1"): 1})] * 2
    assert found.differences[0].explain() == "label: 1 of 1 classes differ: 0 became 1"


def test_many_rows_of_scores_are_compared_row_by_row() -> None:
    one = np.eye(3, dtype=np.float32)[[0, 1, 2] * 20]
    other = one.copy()
    other[7] = [0, 0, 1]
    (difference,) = compare(answer(y=one), answer(y=other), shadow(tolerance=CLASSES)).differences
    assert difference.found == Classes(60, {("1", "2"): 1})


def test_names_of_classes_may_be_text() -> None:
    (difference,) = compare(answer(y=["setosa"]), answer(y=["virginica"]), shadow(tolerance=CLASSES)).differences
    assert difference.found == Classes(1, {("setosa", "virginica"): 1})


def test_text_is_equal_or_not_and_never_quoted() -> None:
    found = compare(answer(y=["secret", "b"]), answer(y=["hidden", "b"]), SPEC)
    assert kinds(found) == [("y", Kind.text, False)]
    assert found.differences[0].explain() == "y: 1 of 2 texts differ"


@pytest.mark.parametrize(
    ("primary", "other", "kind", "sentence"),
    [
        ({"y": [1.0]}, {"y": [1]}, Kind.datatype, "y: FP32 became INT64"),
        ({"y": [1]}, {"y": [[1]]}, Kind.shape, "y: the shape [1] became [1, 1]"),
        ({"y": [1], "z": [1]}, {"z": [1]}, Kind.missing, "y: the shadow's answer does not have it"),
        ({"z": [1]}, {"y": [1], "z": [1]}, Kind.unexpected, "y: only the shadow's answer has it"),
    ],
)
def test_difference_in_structure_is_named(
    primary: dict[str, Any], other: dict[str, Any], kind: Kind, sentence: str
) -> None:
    found = compare(answer(**primary), answer(**other), SPEC)
    assert kinds(found) == [("y", kind, False)]
    assert found.differences[0].explain() == sentence
    assert compare(answer(**primary), answer(**other), shadow(tolerances={"y": ToleranceSpec(ignore=True)})).equal


def test_output_that_is_no_whole_tensor_is_a_mismatch_of_its_own() -> None:
    good, bad = answer(y=[1, 2]), answer(y=[1, 2])
    bad = bad._replace(body=bad.body.replace(b"[1,2]", b"[1,2,3]"))
    found = compare(good, bad, SPEC)
    assert kinds(found) == [("y", Kind.unreadable, False)]


# Answers that are none


@pytest.mark.parametrize(
    ("primary", "other", "outcome"),
    [
        (200, 500, Outcome.shadow_failed),
        (200, 400, Outcome.shadow_failed),
        (200, 504, Outcome.shadow_failed),
        (500, 200, Outcome.primary_failed),
        (400, 400, Outcome.both_failed),
        (500, 502, Outcome.both_failed),
        (200, 503, Outcome.refused),
        (500, 429, Outcome.refused),
        (200, 200, Outcome.answered),
    ],
)
def test_statuses_say_whose_fault_it_was(primary: int, other: int, outcome: Outcome) -> None:
    assert compare_statuses(primary, other).outcome is outcome
    if outcome is not Outcome.answered:
        assert compare(failed(primary), failed(other), SPEC).outcome is outcome


def test_answers_are_left_alone_when_comparing_is_off() -> None:
    assert compare(iris(1), iris(2), shadow(compare=False)) == Comparison(Outcome.answered)


def test_answer_that_is_not_the_protocols_counts_as_failed() -> None:
    assert compare(iris(), Answer(200, b"<html>"), SPEC).outcome is Outcome.shadow_failed
    assert compare(Answer(200, b"<html>"), iris(), SPEC).outcome is Outcome.primary_failed
    assert compare(Answer(200, b"<html>"), Answer(200, b"<body>"), SPEC).outcome is Outcome.both_failed


# Ranking


def test_distance_ranks_by_kind_before_size() -> None:
    spec = shadow(tolerances={"label": CLASSES})
    ranked = [
        compare(iris(), iris(version="1.1.0"), spec),
        compare(iris(), iris(scores=(0.75001, 0.24999, 0.0)), spec),
        compare(iris(), iris(scores=(0.76, 0.24, 0.0)), spec),
        compare(iris(), iris(scores=(0.0, 0.0, 1.0)), spec),
        compare(iris(), iris(label=1), spec),
        compare(iris(), iris(label=1, scores=(0.0, 0.0, 1.0)), spec),
        compare(iris(), answer(label=[0]), spec),
        compare(iris(), answer(label=[[1]]), spec),
        compare(iris(), failed(), spec),
    ]
    distances = [comparison.distance for comparison in ranked]
    assert distances == sorted(set(distances))


@patient
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4),
    st.floats(0, 100, width=32),
    st.floats(0, 100, width=32),
)
def test_distance_grows_with_the_difference(values: list[float], step: float, further: float) -> None:
    near = [abs(value) + step for value in values]
    far = [value + further for value in near]
    start = answer(y=[abs(value) for value in values])
    spec = shadow(tolerance=ToleranceSpec(max_absolute=1))
    assert compare(start, answer(y=near), spec).distance <= compare(start, answer(y=far), spec).distance + 1e-6


@patient
@given(st.data(), st.booleans())
def test_distance_below_one_means_equal(data: st.DataObject, as_classes: bool) -> None:
    def drawn() -> Answer:
        names = data.draw(st.sets(st.sampled_from("abc")))
        values = st.lists(st.integers(0, 2) | st.sampled_from([0.5, 0.50001]), min_size=1, max_size=2)
        drawn_outputs: dict[str, Any] = {name: data.draw(values) for name in sorted(names)}
        return answer(**drawn_outputs)

    found = compare(drawn(), drawn(), shadow(tolerance=ToleranceSpec(classes=as_classes)))
    assert found.equal is (found.distance < 1)
    assert found.distance <= 4
