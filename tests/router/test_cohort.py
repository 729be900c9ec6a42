"""Sticky choice: stable, fair, and moved by nothing but what must move."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, permutations
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.cohort import UNITS, compile_cohort, unit

KEYS = [b"user-%d" % n for n in range(20_000)]
Arms = Sequence[tuple[str, float]]


def assigned(arms: Arms, salt: bytes = b"salt", keys: Sequence[bytes] = KEYS) -> list[str]:
    choose = compile_cohort(arms, salt)
    return [choose(key) for key in keys]


def shares(arms: Arms) -> dict[str, float]:
    total = sum(weight for _, weight in arms)
    return {arm: weight / total for arm, weight in arms}


def moves(before: Sequence[str], after: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)


def least(before: Arms, after: Arms) -> float:
    """The share of keys that every rule has to move: the total variation distance of the shares."""
    old, new = shares(before), shares(after)
    return sum(abs(old.get(arm, 0) - new.get(arm, 0)) for arm in old | new) / 2


def test_rules_are_what_their_description_says_so_that_others_can_follow_them() -> None:
    """Numbers that another implementation has to reach."""
    assert [unit(key, b"flag") for key in (b"ada", b"grace", b"")] == [682244, 943488, 787349]
    choose = compile_cohort([("iris@1.0.0", 90.0), ("iris@2.0.0", 10.0)], b"iris")
    assert [n for n in range(60) if choose(b"user-%d" % n) == "iris@2.0.0"] == [11, 13, 27, 30, 43, 55]


@pytest.mark.parametrize(
    "arms", [[("a", 90), ("b", 10)], [("a", 1), ("b", 1)], [("a", 1), ("b", 2), ("c", 3)], [("a", 99.9), ("b", 0.1)]]
)
def test_arms_get_their_shares_of_keys(arms: Arms) -> None:
    counts = Counter(assigned(arms))
    for arm, share in shares(arms).items():
        assert abs(counts[arm] - share * len(KEYS)) < 4 * sqrt(share * (1 - share) * len(KEYS))


@settings(max_examples=30, deadline=None)
@given(weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=4), key=st.binary(max_size=40))
def test_key_stays_where_it_is_however_the_arms_are_ordered_or_scaled(weights: list[float], key: bytes) -> None:
    arms = list(zip("abcd", weights, strict=False))
    assert len({compile_cohort(order, b"salt")(key) for order in permutations(arms)}) == 1
    assert compile_cohort(arms, b"salt")(key) == compile_cohort([(a, w * 1024) for a, w in arms], b"salt")(key)


def test_raising_a_candidate_only_adds_users_to_it_and_lowering_only_takes_some_away() -> None:
    steps = [assigned([("stable", 100 - weight), ("candidate", weight)]) for weight in (0, 1, 5, 10, 20, 50, 100)]
    for before, after in pairwise(steps):
        assert set(moves(before, after)) <= {("stable", "candidate")}
        assert set(moves(after, before)) <= {("candidate", "stable")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([("a", 90), ("b", 10)], [("a", 80), ("b", 20)]),
        ([("a", 50), ("b", 50)], [("a", 99), ("b", 1)]),
        ([("a", 1), ("b", 1), ("c", 1)], [("a", 1), ("b", 1), ("c", 2)]),
        ([("a", 5), ("b", 3), ("c", 2)], [("a", 5), ("b", 3)]),
        ([("a", 5), ("b", 3)], [("a", 5), ("b", 3), ("c", 2), ("d", 1)]),
    ],
)
def test_change_of_one_arm_or_among_two_moves_only_users_who_must_move(before: Arms, after: Arms) -> None:
    moved = moves(assigned(before), assigned(after))
    must = least(before, after)
    assert abs(moved.total() - must * len(KEYS)) < 4 * sqrt(must * (1 - must) * len(KEYS))
    growing = {arm for arm in shares(after) if shares(after)[arm] > shares(before).get(arm, 0)}
    assert {new for _, new in moved} <= growing


def test_change_of_all_of_three_arms_at_once_moves_little_more_than_must_move() -> None:
    before, after = [("a", 50), ("b", 30), ("c", 20)], [("a", 60), ("b", 20), ("c", 20)]
    moved = moves(assigned(before), assigned(after)).total() / len(KEYS)
    assert least(before, after) * 0.9 < moved < least(before, after) * 1.5


def test_two_salts_assign_independently() -> None:
    """Chi-square of the table of two assignments against the products of the shares."""
    arms = [("a", 5.0), ("b", 3.0), ("c", 2.0)]
    table = Counter(zip(assigned(arms, b"one"), assigned(arms, b"two"), strict=True))
    expected = {(x, y): shares(arms)[x] * shares(arms)[y] * len(KEYS) for x in "abc" for y in "abc"}
    assert sum((table[cell] - n) ** 2 / n for cell, n in expected.items()) < 20.09  # 8 degrees, 1 %


def test_units_are_spread_evenly() -> None:
    counts = Counter(unit(key, b"salt") * 20 // UNITS for key in KEYS)
    assert set(counts) == set(range(20))
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 36.19  # chi-square, 19 degrees, 1 %


def test_arm_that_has_all_the_weight_has_every_key() -> None:
    for arms in ([("a", 1.0)], [("a", 1.0), ("b", 0.0)], [("b", 5e-324), ("a", 1e308)]):
        assert set(assigned(arms, keys=KEYS[:100])) == {"a"}


def test_arms_may_be_anything_that_has_a_name() -> None:
    choose = compile_cohort([(("v1", 1), 90), (("v2", 2), 10)], b"salt", lambda arm: arm[0])
    assert [choose(key)[0] for key in KEYS[:200]] == assigned([("v1", 90), ("v2", 10)], keys=KEYS[:200])


@pytest.mark.parametrize("arms", [[], [("a", 0.0)], [("a", 1.0), ("a", 2.0)]])
def test_arms_without_weight_or_with_one_name_are_refused(arms: Arms) -> None:
    with pytest.raises(ValueError, match=r"above 0|same name"):
        compile_cohort(arms, b"salt")
