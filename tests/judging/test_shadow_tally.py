"""A shadow's counters: what they count, and that gateways' tallies merge to one."""

import math
import sys
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.answers import Answer
from judging.bounded import OTHER
from judging.comparison import Comparison, Outcome, compare
from judging.shadow_examples import Pair
from judging.shadow_tally import MAX_CLASSES, MAX_VALUES, NO_VALUE, ShadowTally, merged_tally
from nstarx.histogram import quantile
from tests.judging.shadows import CLASSES, MS, answer, failed, iris, pair, shadow
from tests.serving.codec.strategies import patient

SPEC = shadow(tolerances={"label": CLASSES}, attributes=["x-tenant"], examples=3)
NAN = math.nan


def tally_of(*pairs: Pair, **changes: Any) -> ShadowTally:
    spec = SPEC.model_copy(update=changes)
    tally = ShadowTally(spec.examples)
    for made in pairs:
        tally.sampled += 1
        tally.add(made, compare(made.primary, made.shadow, spec), spec)
    return tally


def tenant(name: str, other: Answer, **changes: Any) -> Pair:
    return pair(primary=iris(), other=other, values=(name,), **changes)


scores = st.sampled_from([(0.75, 0.25, 0.0), (0.750001, 0.25, 0.0), (0.5, 0.5, 0.0), (NAN, 0.0, 0.0)])
answers = st.builds(iris, st.integers(0, 3), scores) | st.sampled_from([failed(500), failed(503), answer(label=[1.0])])
pairs = st.builds(
    Pair,
    id=st.uuids().map(str),
    at=st.floats(0, 2e9),
    request=st.just(Answer(0, b"{}")),
    primary=answers,
    shadow=answers,
    primary_ns=st.integers(0, 1 << 43),
    shadow_ns=st.integers(0, 1 << 43),
    values=st.tuples(st.sampled_from(["", "acme", "globex"])),
)
several = st.lists(pairs, max_size=8)


def both(*tallies: ShadowTally) -> dict[str, Any]:
    total = merged_tally(tallies)
    assert total is not None
    document: dict[str, Any] = rounded(total.document())
    return document


def rounded(document: Any) -> Any:
    """Sums of floats depend on their order, but only in their last digits."""
    if isinstance(document, dict):
        return {key: rounded(value) for key, value in document.items()}
    if isinstance(document, list):
        return [rounded(value) for value in document]
    return float(f"{document:.9g}") if isinstance(document, float) else document


# Merging


@patient
@given(several, several, several)
def test_merging_is_in_any_order_what_one_gateway_would_have_counted(
    a: list[Pair], b: list[Pair], c: list[Pair]
) -> None:
    one, two, three = tally_of(*a), tally_of(*b), tally_of(*c)
    whole = rounded(tally_of(*a, *b, *c).document())
    left, right = merged_tally([one, two]), merged_tally([two, three])
    assert left is not None
    assert right is not None
    assert both(left, three) == both(one, right) == both(three, two, one) == whole


@patient
@given(several, several)
def test_tally_survives_json_and_the_copy_lives_alone(a: list[Pair], b: list[Pair]) -> None:
    tally = tally_of(*a)
    before = orjson.dumps(tally.document())
    copy = ShadowTally.from_document(orjson.loads(before))
    assert copy == tally
    copy.merge(tally_of(*b))
    for made in b:
        copy.add(made, compare(made.primary, made.shadow, SPEC), SPEC)
    assert orjson.dumps(tally.document()) == before


@patient
@given(several, several)
def test_merging_leaves_the_other_as_it_was(a: list[Pair], b: list[Pair]) -> None:
    one, other = tally_of(*a), tally_of(*b)
    before = other.document()
    one.merge(other)
    for made in a:
        one.add(made, compare(made.primary, made.shadow, SPEC), SPEC)
    assert other.document() == before


def test_nothing_merges_to_nothing() -> None:
    assert merged_tally([]) is None
    assert both(ShadowTally(), ShadowTally()) == ShadowTally().document()


# Counting


def test_each_outcome_is_counted_apart() -> None:
    tally = tally_of(
        tenant("a", iris(version="1.1.0")),
        tenant("a", iris(1)),
        tenant("a", failed(500)),
        tenant("a", failed(503)),
        pair(primary=failed(500), other=iris(), values=("a",)),
        pair(primary=failed(400), other=failed(400), values=("a",)),
    )
    assert tally.sampled == 6
    assert tally.outcomes == {
        "compared": 2, "shadow_failed": 1, "refused": 1, "primary_failed": 1, "both_failed": 1,
    }  # fmt: skip
    assert tally.mismatched == 1
    assert tally.of(Outcome.compared, Outcome.refused) == 3
    assert tally.primary_statuses == {"500": 1, "400": 1}
    assert tally.shadow_statuses == {"500": 1, "503": 1, "400": 1}
    assert tally.slices == {"x-tenant": {"a": (3, 1, 2, 1)}}


def test_only_pairs_that_both_answered_are_timed() -> None:
    tally = tally_of(tenant("a", iris()), tenant("a", failed(), shadow_ns=90_000 * MS))
    assert sum(tally.primary_latency) == sum(tally.shadow_latency) == 1
    p50, shadow_p50 = quantile(tally.primary_latency, 0.5), quantile(tally.shadow_latency, 0.5)
    assert p50 == pytest.approx(0.001, rel=0.13)
    assert shadow_p50 == pytest.approx(0.002, rel=0.13)


def test_numbers_add_up_per_output() -> None:
    tally = tally_of(
        tenant("a", iris(scores=(0.75, 0.25, 0.0))),
        tenant("a", iris(scores=(0.75, 0.5, 0.0))),
        tenant("a", iris(scores=(0.75, 0.0, 0.125))),
        tenant("a", iris(scores=(NAN, 0.25, 0.0))),
    )
    seen = tally.outputs["probabilities"]
    assert (seen.mismatches, seen.kinds, seen.not_finite) == (3, {"numbers": 3}, 1)
    assert (seen.max_absolute, seen.max_relative) == (0.25, 1.0)
    assert seen.sum_absolute == pytest.approx(0.25 / 3 + 0.375 / 3)
    assert "label" not in tally.outputs


def test_pair_that_was_not_compared_is_timed_and_told_apart() -> None:
    tally = ShadowTally()
    tally.add(tenant("a", iris(1)), Comparison(Outcome.answered), SPEC)
    assert (tally.outcomes, tally.mismatched, sum(tally.shadow_latency)) == ({"answered": 1}, 0, 1)
    assert tally.slices == {"x-tenant": {"a": (1, 0, 0, 0)}}


def test_disagreeing_classes_are_counted_by_pair() -> None:
    tally = tally_of(*[tenant("a", iris(label)) for label in (0, 1, 2, 2)])
    assert tally.outputs["label"].confusion == {"0": {"1": 1, "2": 2}}


def test_failures_do_not_crowd_out_differences() -> None:
    failures = [tenant("a", failed(), id=f"f{at}", at=float(at)) for at in range(9)]
    tally = tally_of(tenant("a", iris(1), id="different"), *failures)
    assert [kept["id"] for kept in tally.examples] == ["different"]
    assert [kept["id"] for kept in tally.failures] == ["f0", "f1", "f2"]


def test_request_without_the_header_has_a_value_too() -> None:
    assert list(tally_of(tenant("", iris())).slices["x-tenant"]) == [NO_VALUE]


# Memory


def test_flood_of_values_classes_and_differences_takes_bounded_memory() -> None:
    def flood(start: int) -> ShadowTally:
        made = [
            pair(f"r{n}", answer(label=[n % 500]), answer(label=[n]), at=float(n), values=(f"tenant-{n}" * 20,))
            for n in range(start, start + 600)
        ]
        return tally_of(*made)

    total = merged_tally([flood(1000), flood(2000)])
    assert total is not None
    values, confusion = total.slices["x-tenant"], total.outputs["label"].confusion
    assert len(values) == MAX_VALUES + 1
    assert max(map(len, values)) <= 64
    assert sum(counts[0] for counts in values.values()) == 1200
    assert len(confusion) == MAX_CLASSES + 1
    assert OTHER in confusion
    assert all(len(row) <= MAX_CLASSES + 1 for row in confusion.values())
    assert sum(sum(row.values()) for row in confusion.values()) == 1200
    assert len(total.examples) == SPEC.examples
    assert len(orjson.dumps(total.document())) < 60_000


def test_shadow_without_examples_keeps_none() -> None:
    tally = tally_of(tenant("a", iris(1)), tenant("a", failed()), examples=0)
    assert (tally.examples, tally.failures, tally.mismatched) == ([], [], 1)


def test_sums_of_the_largest_floats_stay_json() -> None:
    huge = pair(primary=answer(y=np.array([1.5e308])), other=answer(y=np.array([0.0])), values=("a",))
    tally = tally_of(huge, huge._replace(id="again"))
    assert tally.outputs["y"].sum_absolute == sys.float_info.max
    assert ShadowTally.from_document(orjson.loads(orjson.dumps(tally.document()))) == tally
