"""Evidence against a version: what it may be expected to do, what it does, and how rarely it lies."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.sequential import (
    CEILING,
    HEAD_START,
    NOTHING,
    UNKNOWN,
    Bet,
    Lately,
    Seen,
    Sequential,
    Trail,
    begin,
    fading,
    fired,
    fold,
    known,
    limit,
    rules,
    threshold,
)
from nstarx.spec.demotion import DemotionSpec, MinEffect

POLICY = DemotionSpec()
EFFECT = MinEffect()
RATE = st.floats(0.0001, 0.9)
STAKE = st.floats(0.01, 1.0)


def told(*failures: tuple[int, int, int], policy: DemotionSpec = POLICY, start: Seen = NOTHING) -> Trail:
    """A trail after failed calls, each given as (calls since the last, calls and failures of the stable version)."""
    trail, seen = begin(policy, start), start
    for calls, stable_calls, stable_failures in failures:
        seen = Seen(
            seen.calls + calls,
            seen.failures + 1,
            stable_calls=seen.stable_calls + stable_calls,
            stable_failures=seen.stable_failures + stable_failures,
        )
        trail = fold(trail, seen, 0.0, policy)
    return trail


def broken(trail: Trail, policy: DemotionSpec = POLICY) -> set[Sequential]:
    return {rule for rule, enough in fired(trail, policy).items() if enough}


# What the bets are worth


@given(RATE, STAKE)
def test_bet_against_a_limit_is_fair_at_the_limit_and_loses_below_it(limit: float, stake: float) -> None:
    bet = Bet.against_limit(limit, stake)
    assert limit * bet.win + (1 - limit) * bet.keep == pytest.approx(1.0)
    assert limit / 2 * bet.win + (1 - limit / 2) * bet.keep < 1


@given(st.floats(0.01, 1000), st.floats(1, 10), st.floats(0.0001, 0.5), st.floats(0.01, 0.99), st.floats(0, 1))
def test_bet_against_the_stable_version_is_never_better_than_fair_whatever_its_error_rate(
    per_call: float, ratio: float, floor: float, stake: float, stable: float
) -> None:
    bet = Bet.against_stable(per_call, MinEffect(ratio=ratio, floor=floor), stake)
    rate = min(floor + ratio * stable, 1.0)
    mine, share = rate * bet.win + (1 - rate) * bet.keep, 1 / (1 + per_call)
    other = stable * bet.cost + (1 - stable)
    assert min(bet) >= 0
    assert share * mine + (1 - share) * other <= 1 + 1e-9


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_growth_is_the_product_over_calls(successes: int, failures: int, stable_failures: int) -> None:
    bet = Bet(2.0, 0.9, 0.5)
    product = 2.0**failures * 0.9**successes * 0.5**stable_failures
    assert bet.growth(successes + failures, failures, stable_failures) == pytest.approx(product)


# How evidence moves


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 20))
def test_between_failures_evidence_only_falls(failures: int, successes: int, stable_failures: int) -> None:
    trail = told(*[(3, 27, 0)] * failures)
    start = fading(trail, trail.seen, POLICY)
    later = trail.seen._replace(
        calls=trail.seen.calls + 3 * successes,
        stable_calls=trail.seen.stable_calls + 27 * successes,
        stable_failures=trail.seen.stable_failures + min(stable_failures, 27 * successes),
    )
    end = fading(trail, later, POLICY)
    assert all(end[rule] <= start[rule] for rule in start)


@given(st.integers(0, 30), st.integers(0, 30))
def test_failures_of_the_stable_version_speak_for_the_accused(some: int, more: int) -> None:
    few, many = (told((20, 180, 0), (20, 180, 0), (20, 180, 0), (20, 180, n)) for n in (some, some + more))
    assert few.detectors["min_effect"].total >= many.detectors["min_effect"].total


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 20_000), st.integers(0, 5)), min_size=1, max_size=30))
def test_many_runs_side_by_side_say_what_each_of_them_says(failures: list[tuple[int, int, int]]) -> None:
    """So that simulations of thousands of runs are simulations of what runs live."""
    alone, pair = told(*failures), begin(POLICY, Seen(*[np.zeros(2)] * 6))
    seen = pair.seen
    for calls, stable_calls, stable_failures in failures:
        more = (calls, 1, 0, 0, stable_calls, stable_failures)
        seen = Seen(*(a + np.array([b, 1.0]) for a, b in zip(seen, more, strict=True)))
        pair = fold(pair, seen, 0.0, POLICY)
    for rule, detector in alone.detectors.items():
        assert detector.total == pytest.approx(float(pair.detectors[rule].total[0]), rel=1e-9)
        assert detector.start.calls == pair.detectors[rule].start.calls[0]
        assert bool(fired(alone, POLICY)[rule]) == bool(np.asarray(fired(pair, POLICY)[rule] * np.ones(2))[0])


def test_suspicion_begins_with_the_failure_that_counts() -> None:
    trail = told((5000, 45_000, 4), (7000, 63_000, 6), (5, 45, 0), (5, 45, 0))
    assert trail.detectors["min_effect"].start == Seen(11_999, 1, stable_calls=108_000, stable_failures=10)


def test_one_failure_is_never_enough_however_long_all_was_quiet() -> None:
    trail = told((10**12, 9 * 10**12, 0))
    assert max(detector.total for detector in trail.detectors.values()) == HEAD_START
    assert not broken(trail)


def test_numbers_stay_finite_when_everything_fails_and_nobody_acts() -> None:
    trail = begin(POLICY)
    for n in range(1, 30):
        trail = fold(trail, Seen(10_000 * n, 10_000 * n, stable_calls=90_000 * n), 0.0, POLICY)
    assert all(0 < detector.total <= CEILING for detector in trail.detectors.values())


# What is enough


def test_five_failures_in_a_row_are_enough_beside_a_stable_version_that_is_known_to_be_good() -> None:
    start = Seen(stable_calls=100_000, stable_failures=50)
    assert not broken(told(*[(200, 1800, 0)], *[(1, 9, 0)] * 3, start=start))
    assert broken(told(*[(200, 1800, 0)], *[(1, 9, 0)] * 4, start=start)) == {"consecutive_failures"}


def test_more_are_wanted_where_nobody_knows_yet_and_many_more_where_the_stable_version_is_flaky() -> None:
    def needed(start: Seen) -> int:
        return next(n for n in range(1, 99) if "consecutive_failures" in broken(told(*[(1, 9, 0)] * n, start=start)))

    assert needed(Seen()) == 9
    assert needed(Seen(stable_calls=100_000, stable_failures=5000)) == 10
    assert needed(Seen(stable_calls=100_000, stable_failures=20_000)) >= 18


def test_failures_in_a_row_may_be_asked_for_in_any_number_or_not_at_all() -> None:
    policy = DemotionSpec(consecutive_failures=30, max_error_rate=None, min_effect=None)
    assert not broken(told(*[(1, 9, 0)] * 29, policy=policy), policy)
    assert broken(told(*[(1, 9, 0)] * 30, policy=policy), policy) == {"consecutive_failures"}
    assert "consecutive_failures" not in rules(DemotionSpec(consecutive_failures=0))


def test_error_rates_wait_for_calls_enough() -> None:
    policy = DemotionSpec(min_requests=200, consecutive_failures=0)
    assert not broken(told(*[(1, 9, 0)] * 199, policy=policy), policy)
    assert broken(told(*[(1, 9, 0)] * 200, policy=policy), policy) == {"max_error_rate", "min_effect"}


def test_version_without_a_stable_one_is_held_to_the_limit_alone() -> None:
    assert broken(told(*[(2, 0, 0)] * 60)) == {"max_error_rate"}
    assert not broken(told(*[(30, 0, 0)] * 60))


def test_dependency_that_is_down_for_both_is_nobodys_fault() -> None:
    assert not broken(told((1000, 9000, 3), *[(1, 9, 9)] * 500))
    assert not broken(told((1000, 9000, 3), *[(2, 18, 9)] * 500))


def test_candidate_that_keeps_failing_after_the_bad_spell_is_found_out() -> None:
    shared = [(1000, 9000, 3), *[(1, 9, 9)] * 50]
    assert broken(told(*shared, *[(1, 9, 0)] * 40))


def test_timeouts_and_invalid_outputs_may_have_limits_of_their_own() -> None:
    policy = DemotionSpec(max_timeout_rate=0.01, max_invalid_rate=0.02, max_error_rate=None, min_effect=None)
    late, wrong, seen = begin(policy), begin(policy), Seen()
    for n in range(1, 41):
        seen = Seen(10 * n, n, n, 0, 90 * n, 0)
        late = fold(late, seen, 0.0, policy)
        wrong = fold(wrong, seen._replace(timeouts=0, invalid=n), 0.0, policy)
    assert broken(late, policy) == {"max_timeout_rate"}
    assert broken(wrong, policy) == {"max_invalid_rate"}


def test_false_alarms_are_divided_among_rules_and_places() -> None:
    assert threshold(POLICY) == pytest.approx(3 * 2 * 1e6 / 0.001)
    assert threshold(DemotionSpec(max_p99_ms=100)) == pytest.approx(4 * 2 * 1e6 / 0.001)


# What is known of the stable version


def test_little_is_known_of_a_stable_version_with_few_calls() -> None:
    def bound(calls: int, failures: int) -> float:
        return float(known(told((1, calls, failures)), Seen(1, 1, 0, 0, calls, failures), POLICY).bound)

    assert bound(10, 0) > 1
    assert 0.01 < bound(1000, 0) < 0.02
    assert 0.02 < bound(100_000, 2000) < 0.022


def test_the_bound_on_its_error_rate_is_hardly_ever_too_low() -> None:
    random = np.random.default_rng(3)
    for rate in (0.001, 0.02, 0.2):
        failures = random.binomial(5000, rate, 20_000)
        bound = (failures + 6.9 + (6.9**2 + 2 * 6.9 * failures) ** 0.5) / 5000
        assert (bound < rate).mean() <= 0.001


def test_what_was_usual_long_ago_is_forgotten() -> None:
    marks, calls, failures = UNKNOWN, 0, 0
    for n in range(40):
        calls, failures = calls + 1000, failures + (500 if n < 20 else 1)
        marks = marks.moved(calls, failures, 5000)
    base, count = marks.since(calls, failures)
    assert (count / base) == 0.001
    assert Lately().since(10, 3) == (10, 3)


def test_limits_never_ask_more_of_a_version_than_of_the_one_that_would_take_its_place() -> None:
    flaky = known(told((1, 100_000, 30_000)), Seen(1, 1, 0, 0, 100_000, 30_000), POLICY)
    assert limit("max_error_rate", POLICY, flaky) == pytest.approx(0.45)
    assert limit("max_timeout_rate", DemotionSpec(max_timeout_rate=0.01), flaky) == 0.01


# How rarely it lies


def frequencies(
    mine: Any, stables: Any, calls: int, evidence: float, per_call: int = 9, runs: int = 1000
) -> dict[str, float]:
    """In what part of many runs evidence gets so far within so many calls, by rule, for rates by call."""
    random, none = np.random.default_rng(11), np.zeros(runs)
    trail, failures, reached = begin(POLICY, Seen(*[none] * 6)), none, dict.fromkeys(rules(POLICY), none > 0)
    stable_failures = none
    for call in range(1, calls + 1):
        fails = random.random(runs) < mine(call)
        stable_failures = stable_failures + random.binomial(per_call, stables(call), runs)
        failures = failures + fails
        if not fails.any():
            continue
        seen = Seen(none + call, failures, none, none, none + call * per_call, stable_failures)
        trail = chosen(fails, fold(trail, seen, 0.0, POLICY), trail)
        reached = {rule: hit | (trail.detectors[rule].total >= evidence) for rule, hit in reached.items()}
    return {rule: float(hit.mean()) for rule, hit in reached.items()}


def chosen(condition: Any, then: Any, otherwise: Any) -> Any:
    """One trail out of two, run by run."""
    if isinstance(then, dict):
        return {key: chosen(condition, then[key], otherwise[key]) for key in then}
    if isinstance(then, tuple):
        parts = [chosen(condition, a, b) for a, b in zip(then, otherwise, strict=True)]
        return type(then)(*parts) if hasattr(then, "_fields") else tuple(parts)
    return np.where(condition, then, otherwise)


@pytest.mark.parametrize("stable", [0.0, 0.02, 0.2])
def test_evidence_against_a_version_at_the_edge_of_what_is_borne_stays_within_its_bound(stable: float) -> None:
    rate, calls, evidence = EFFECT.floor + EFFECT.ratio * stable, 600, 6000.0
    seen = frequencies(lambda call: rate, lambda call: stable, calls, evidence)
    assert seen["min_effect"] <= calls / evidence


def test_the_bound_holds_through_bad_spells_that_both_share() -> None:
    calls, evidence = 600, 6000.0
    seen = frequencies(
        lambda call: 0.3 if call % 100 < 10 else 0.002, lambda call: 0.3 if call % 100 < 10 else 0.002, calls, evidence
    )
    assert seen["min_effect"] <= calls / evidence


def test_evidence_against_the_limit_stays_within_its_bound_at_the_limit() -> None:
    seen = frequencies(lambda call: 0.05, lambda call: 0.0, 600, 6000.0)
    assert seen["max_error_rate"] <= 0.1


def test_evidence_against_a_version_beyond_the_edge_grows_well_past_its_bound() -> None:
    seen = frequencies(lambda call: 0.2, lambda call: 0.02, 300, 6000.0, runs=200)
    assert min(seen["min_effect"], seen["max_error_rate"]) > 0.9
