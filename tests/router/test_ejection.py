"""Sick replicas are taken out, stay out longer each time, come back, and are never too many."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.spec.balancing import EjectionSpec, LatencyOutlierSpec, SuccessRateSpec
from router.ejection import Ejection, OutlierDetection, Return
from router.health import Failure, Health

MS = 1_000_000
RUN = EjectionSpec(consecutive_failures=5, success_rate=None, latency_outlier=None)


def detection(spec: EjectionSpec, replicas: int) -> tuple[OutlierDetection, list[Health]]:
    found = OutlierDetection(spec, 0.0)
    return found, [found.join(f"r{n}", 0.0) for n in range(replicas)]


def fail(
    found: OutlierDetection, health: Health, times: int, now: float, kind: Failure = Failure.ERROR
) -> list[Ejection]:
    """Let it fail, and carry out what follows."""
    ejections = []
    for _ in range(times):
        if ejection := found.failed(health, kind, now):
            found.carry_out(ejection, now)
            ejections.append(ejection)
    return ejections


def answer(health: Health, times: int, ms: float = 1.0) -> None:
    for _ in range(times):
        health.succeeded(int(ms * MS))


def sweep(found: OutlierDetection, now: float) -> list[Ejection | Return]:
    decisions = found.sweep(now)
    for decision in decisions:
        found.carry_out(decision, now)
    return decisions


def test_call_that_was_withdrawn_shows_that_a_replica_is_slower_than_that() -> None:
    found, (slow, quick) = detection(RUN, 2)
    answer(slow, 1, 1.0)
    for _ in range(100):
        slow.outlasted(4 * MS)
    assert 3.5 * MS < slow.median_ns < 4.5 * MS
    slow.outlasted(1 * MS)
    assert 3.5 * MS < slow.median_ns < 4.5 * MS
    assert (slow.calls, slow.failures) == (102, 0)
    fail(found, quick, 2, 0.0)
    quick.outlasted(4 * MS)
    assert quick.consecutive == 2


# Failures in a row


def test_replica_that_fails_five_times_in_a_row_is_ejected_with_the_fifth() -> None:
    found, (sick, *_) = detection(RUN, 3)
    assert not fail(found, sick, 4, now=7.0)
    (ejection,) = fail(found, sick, 1, now=7.0)
    assert (ejection.replica, ejection.rule, ejection.until) == ("r0", "consecutive_failures", 37.0)
    assert (ejection.measured, ejection.threshold, ejection.calls, ejection.times) == (5, 5, 5, 1)
    assert ejection.sentence == "replica r0 ejected for 30 s: 5 answers in a row failed"
    assert sick.ejected_until == 37.0


def test_one_good_answer_makes_failures_count_from_one_again() -> None:
    found, (flaky, *_) = detection(RUN, 3)
    for _ in range(10):
        assert not fail(found, flaky, 4, now=1.0)
        answer(flaky, 1)
    assert flaky.failures == 40


def test_errors_of_the_model_do_not_count_as_gateway_failures() -> None:
    spec = RUN.model_copy(update={"consecutive_failures": 0, "consecutive_gateway_failures": 3})
    found, (sick, *_) = detection(spec, 3)
    assert not fail(found, sick, 2, 1.0, Failure.GATEWAY)
    assert not fail(found, sick, 9, 1.0, Failure.ERROR)
    assert not fail(found, sick, 2, 1.0, Failure.GATEWAY)
    answer(sick, 1)
    assert not fail(found, sick, 2, 1.0, Failure.GATEWAY)
    (ejection,) = fail(found, sick, 1, 1.0, Failure.GATEWAY)
    assert ejection.rule == "consecutive_gateway_failures"
    assert "3 answers in a row were 502, 503 or 504 or never came" in ejection.sentence


def test_answers_on_their_way_when_a_replica_is_ejected_do_not_eject_it_twice() -> None:
    found, (sick, *_) = detection(RUN, 3)
    assert len(fail(found, sick, 50, now=0.0)) == 1
    assert found.ejected == 1


# Back-off and return


def test_replica_comes_back_and_stays_out_longer_each_time_up_to_the_longest() -> None:
    found, (sick, *_) = detection(RUN.model_copy(update={"max_ejection_time_s": 100.0}), 3)
    now, seconds = 0.0, []
    for _ in range(5):
        (ejection,) = fail(found, sick, 5, now)
        seconds.append(ejection.seconds)
        assert not sweep(found, ejection.until - 0.1)
        now = ejection.until
        (returned,) = sweep(found, now)
        assert isinstance(returned, Return)
        assert returned.replica == "r0"
    assert seconds == [30, 60, 90, 100, 100]
    assert returned.sentence == "replica r0 takes requests again; it was ejected 5 times lately"


def test_base_time_above_the_longest_counts() -> None:
    found, (sick, *_) = detection(RUN.model_copy(update={"base_ejection_time_s": 900.0}), 3)
    assert [e.seconds for e in fail(found, sick, 5, 0.0)] == [900]


def test_an_interval_without_ejection_forgives_one() -> None:
    found, (sick, *_) = detection(RUN, 3)
    fail(found, sick, 5, 0.0)
    sweep(found, 30.0)
    assert sick.ejections == 1
    sweep(found, 40.0)
    assert sick.ejections == 0
    (ejection,) = fail(found, sick, 5, 45.0)
    assert ejection.seconds == 30


def test_replica_that_returns_begins_with_a_clean_record() -> None:
    found, (sick, *_) = detection(RUN, 3)
    fail(found, sick, 9, 0.0)
    sweep(found, 30.0)
    assert not fail(found, sick, 4, 30.0)
    assert len(fail(found, sick, 1, 30.0)) == 1


# How many


def test_one_of_three_may_be_out_though_ten_per_cent_would_be_nobody() -> None:
    found, healths = detection(RUN, 3)
    ejected = [fail(found, health, 20, 0.0) for health in healths[:2]]
    assert [len(ejections) for ejections in ejected] == [1, 0]
    assert found.overflow == 4


def test_version_whose_every_replica_fails_is_not_ejected_away() -> None:
    found, healths = detection(RUN.model_copy(update={"max_ejection_percent": 100.0}), 4)
    for _ in range(20):
        assert not [ejection for health in healths for ejection in fail(found, health, 1, 0.0)]
    answer(healths[0], 1)
    assert [e.replica for health in healths[1:] for e in fail(found, health, 5, 0.0)] == ["r1", "r2", "r3"]
    assert found.overflow == 0


def test_nobody_is_out_when_the_share_is_taken_literally() -> None:
    found, healths = detection(RUN.model_copy(update={"always_eject_one_host": False}), 9)
    assert not fail(found, healths[0], 20, 0.0)
    joined = found.join("r9", 1.0)
    assert len(fail(found, joined, 5, 1.0)) == 1


def test_only_replica_is_never_ejected() -> None:
    found, (only,) = detection(RUN.model_copy(update={"max_ejection_percent": 100.0}), 1)
    assert not fail(found, only, 500, 0.0)


def test_replica_that_leaves_while_it_is_out_makes_room_for_another() -> None:
    found, (first, second, _) = detection(RUN, 3)
    fail(found, first, 5, 0.0)
    found.leave("r0")
    found.leave("r0")
    assert found.ejected == 0
    assert len(fail(found, second, 5, 1.0)) == 1


def test_decision_about_a_replica_that_has_left_changes_nothing() -> None:
    found, (sick, *_) = detection(RUN, 3)
    fail(found, sick, 4, 0.0)
    ejection = found.failed(sick, Failure.ERROR, 0.0)
    assert ejection
    found.leave("r0")
    found.carry_out(ejection, 0.0)
    assert found.ejected == 0


EVENT = st.tuples(st.sampled_from(["fail", "answer", "sweep", "leave", "join"]), st.integers(0, 9))


@settings(max_examples=200, deadline=None)
@given(events=st.lists(EVENT, max_size=300), percent=st.integers(0, 100), one=st.booleans())
def test_never_too_many_are_out_whatever_happens(events: list[tuple[str, int]], percent: int, one: bool) -> None:
    spec = RUN.model_copy(
        update={"consecutive_failures": 2, "max_ejection_percent": float(percent), "always_eject_one_host": one}
    )
    found, now = OutlierDetection(spec, 0.0), 0.0
    healths: dict[int, Health] = {}
    for what, n in events:
        now += 3.0
        before = found.ejected
        if what == "join" and n not in healths:
            healths[n] = found.join(str(n), now)
        elif what == "leave" and n in healths:
            found.leave(str(n))
            del healths[n]
        elif what == "sweep":
            sweep(found, now)
        elif n in healths:
            fail(found, healths[n], 2, now) if what == "fail" else answer(healths[n], 1)
        out = sum(health.ejected_until > 0 for health in healths.values())
        assert found.ejected == out
        if found.ejected > before:
            assert out < len(healths)
            assert out * 100 <= percent * len(healths) or (one and out == 1)


# Success rates


RATES = EjectionSpec(consecutive_failures=0, latency_outlier=None, success_rate=SuccessRateSpec())


def rated(found: OutlierDetection, healths: list[Health], failures: list[int], calls: int = 200) -> list[str]:
    """One interval with so many failures of each; the replicas ejected at its end."""
    for health, failed in zip(healths, failures, strict=True):
        answer(health, calls - failed)
        fail(found, health, failed, 5.0)
    assert not sweep(found, 9.9)
    return [decision.replica for decision in sweep(found, 10.0)]


def test_replica_with_a_success_rate_far_below_the_others_is_ejected_at_the_end_of_the_interval() -> None:
    found, healths = detection(RATES, 6)
    assert rated(found, healths, [2, 0, 60, 1, 0, 2]) == ["r2"]


def test_ejection_for_a_success_rate_says_the_numbers() -> None:
    found, healths = detection(RATES, 6)
    for health, failed in zip(healths, [0, 0, 60, 0, 0, 0], strict=True):
        answer(health, 200 - failed)
        fail(found, health, failed, 5.0)
    (ejection,) = found.sweep(10.0)
    assert isinstance(ejection, Ejection)
    assert ejection.measured == pytest.approx(0.7)
    assert ejection.sentence == (
        "replica r2 ejected for 30 s: 70.0% of its answers were good; "
        "the mean of 6 replicas is 95.0%, and below 73.8% is an outlier"
    )


def test_small_differences_among_good_replicas_eject_nobody() -> None:
    assert not rated(*detection(RATES, 6), [1, 0, 0, 0, 0, 0])


def test_version_that_fails_everywhere_alike_ejects_nobody() -> None:
    assert not rated(*detection(RATES, 6), [100, 101, 99, 100, 98, 102])


def test_too_few_replicas_or_requests_say_nothing() -> None:
    assert not rated(*detection(RATES, 4), [60, 0, 0, 0])
    assert not rated(*detection(RATES, 6), [60, 0, 0, 0, 0, 0], calls=99)


def test_each_interval_is_judged_by_itself() -> None:
    found, healths = detection(RATES, 6)
    for health in healths:
        answer(health, 200)
    assert not sweep(found, 10.0)
    fail(found, healths[0], 99, 15.0)
    assert not sweep(found, 20.0)


# Latency


SLOW = EjectionSpec(consecutive_failures=0, success_rate=None, latency_outlier=LatencyOutlierSpec())


def test_replica_that_is_slow_in_three_sweeps_is_ejected() -> None:
    found, healths = detection(SLOW, 3)
    for second in (1.0, 2.0, 3.0):
        for health, ms in zip(healths, (5.0, 50.0, 6.0), strict=True):
            answer(health, 100, ms)
        decisions = sweep(found, second)
        assert len(decisions) == (second == 3.0)
    (ejection,) = decisions
    assert isinstance(ejection, Ejection)
    assert (ejection.replica, ejection.rule, ejection.calls) == ("r1", "latency_outlier", 300)
    assert ejection.measured == pytest.approx(0.05, rel=0.1)
    assert ejection.threshold == pytest.approx(0.0165, rel=0.1)
    assert "its median latency is" in ejection.sentence


def test_one_pause_of_a_replica_ejects_nobody() -> None:
    found, healths = detection(SLOW, 3)
    for health in healths:
        answer(health, 100, 5.0)
    answer(healths[1], 200, 1000.0)
    for second in range(1, 10):
        assert not sweep(found, float(second))
        for health in healths:
            answer(health, 100, 5.0)


def test_slow_replica_without_new_answers_is_not_judged_again() -> None:
    found, healths = detection(SLOW, 3)
    for health, ms in zip(healths, (5.0, 50.0, 6.0), strict=True):
        answer(health, 100, ms)
    assert not any(sweep(found, float(second)) for second in range(1, 10))


@pytest.mark.parametrize(
    ("latencies", "answers"),
    [
        ((5.0, 14.0, 6.0), 100),  # less than three times
        ((0.2, 0.9, 0.2), 100),  # less than a millisecond
        ((5.0, 50.0, 6.0), 16),  # too few answers
    ],
)
def test_difference_that_may_be_chance_or_matters_to_nobody_ejects_nobody(
    latencies: tuple[float, ...], answers: int
) -> None:
    found, healths = detection(SLOW, 3)
    for second in range(1, 4):
        for health, ms in zip(healths, latencies, strict=True):
            answer(health, answers, ms)
        assert not sweep(found, float(second))


def test_replica_that_never_answered_well_is_no_measure_for_others() -> None:
    found, (good, bad) = detection(SLOW, 2)
    for second in range(1, 5):
        answer(good, 100, 5.0)
        fail(found, bad, 100, float(second))
        assert not sweep(found, float(second))


def test_of_two_slow_replicas_the_slower_goes_first() -> None:
    found, healths = detection(SLOW, 6)
    ejected = []
    for second in range(1, 4):
        for health, ms in zip(healths, (5.0, 50.0, 90.0, 5.0, 5.0, 5.0), strict=True):
            answer(health, 100, ms)
        ejected += sweep(found, float(second))
    assert [decision.replica for decision in ejected] == ["r2"]


def test_slow_replicas_are_known_with_how_slow_they_are() -> None:
    found, healths = detection(SLOW, 4)
    for health, ms in zip(healths, (5.0, 50.0, 6.0, 9.0), strict=True):
        answer(health, 100, ms)
    assert found.slowness() == {"r1": pytest.approx(50 / 6, rel=0.2)}
    joined = found.join("r4", 1.0)
    answer(joined, 19, 500.0)
    assert set(found.slowness()) == {"r1"}


# Only watching


def test_without_enforcement_ejections_are_told_and_nobody_goes() -> None:
    found, (sick, *_) = detection(RUN.model_copy(update={"enforce": False}), 3)
    (ejection,) = fail(found, sick, 50, 0.0)
    assert not ejection.enforced
    assert ejection.sentence.startswith("replica r0 would be ejected for 30 s: ")
    assert (found.ejected, sick.ejected_until, sick.consecutive) == (0, 0, 50)
    assert len(fail(found, sick, 50, 30.0)) == 1


def test_slow_replica_is_told_once_where_nobody_is_ejected() -> None:
    found, healths = detection(SLOW.model_copy(update={"enforce": False}), 3)
    told = []
    for second in range(1, 30):
        for health, ms in zip(healths, (5.0, 50.0, 6.0), strict=True):
            answer(health, 100, ms)
        told += sweep(found, float(second))
    assert len(told) == 1
    assert found.slowness()


def test_without_rules_nobody_is_ejected_and_slowness_is_known_all_the_same() -> None:
    found = OutlierDetection(None, 0.0)
    fast, slow = found.join("fast", 0.0), found.join("slow", 0.0)
    assert not fail(found, fast, 50, 0.0)
    answer(fast, 50, 5.0)
    answer(slow, 50, 50.0)
    assert not sweep(found, 100.0)
    assert list(found.slowness()) == ["slow"]


# The estimate of the median


@pytest.mark.parametrize("scale", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("seed", range(5))
def test_median_is_found_and_followed(seed: int, scale: float) -> None:
    health, random = Health("r", 0.0), Random(seed)
    for factor in (1.0, 10.0, 0.5):
        for _ in range(200):
            health.succeeded(int(scale * factor * random.lognormvariate(0, 0.3)))
        assert 0.6 < health.median_ns / (scale * factor) < 1.6


def test_rare_slow_answers_do_not_move_the_median() -> None:
    health = Health("r", 0.0)
    for n in range(1000):
        health.succeeded(MS if n % 10 else 1000 * MS)
    assert 0.8 * MS < health.median_ns < 1.3 * MS
