"""Who begins, who waits, who is sent away; and the limit that decides it."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.admission import AdmissionSpec
from nstarx.spec.record import parse
from router.admission import ADMIT, Admission, AtCapacity, Queue, Reject
from router.gradient import GradientLimit
from router.priority_queue import NEVER

MS = 1_000_000
S = 1000 * MS


def admission(queue: dict[str, Any] | None = None, **spec: Any) -> Admission[str]:
    document = {"min_concurrency": 2, "queue": {"max_queue_size": 3, **(queue or {})}, **spec}
    return Admission(parse(AdmissionSpec, document, "admission"), 0, lambda: 0.0)


# Decisions


def test_as_many_begin_as_the_limit_says_then_some_wait_then_none() -> None:
    found = admission()
    decisions = [found.arrive(f"r{n}", 0, NEVER, 0) for n in range(6)]
    assert decisions[:2] == [ADMIT, ADMIT]
    assert all(isinstance(decision, Queue) for decision in decisions[2:5])
    assert decisions[5] == Reject(1, [])
    assert (found.limit.in_flight, found.queue.size, found.rejected) == (2, 3, 1)


def test_whoever_ends_lets_the_next_begin() -> None:
    found = admission()
    for n in range(4):
        found.arrive(f"r{n}", 0, NEVER, 0)
    assert found.release(5).admitted == []
    found.limit.leave(0, 5)
    assert found.release(5).admitted == ["r2"]
    found.limit.drop()
    assert found.release(6).admitted == ["r3"]
    assert found.limit.in_flight == 2


def test_nobody_overtakes_those_who_wait() -> None:
    found = admission()
    for n in range(3):
        found.arrive(f"r{n}", 0, NEVER, 0)
    found.limit.drop()
    assert isinstance(found.arrive("late", 0, NEVER, 0), Queue)
    assert found.release(0).admitted == ["r2"]


def test_who_waited_too_long_is_told_and_does_not_begin() -> None:
    found = admission()
    for n, deadline in enumerate((100, 100, 10, 50)):
        found.arrive(f"r{n}", 0, deadline, 0)
    found.limit.drop()
    released = found.release(20)
    assert (released.admitted, released.expired) == (["r3"], ["r2"])


def test_important_request_takes_the_place_of_a_lesser_one() -> None:
    found = admission({"priority_levels": 2, "default_priority_level": 2, "max_queue_size": 1})
    for n in range(3):
        found.arrive(f"r{n}", 0, NEVER, 0)
    decision = found.arrive("vip", 1, NEVER, 0)
    assert isinstance(decision, Queue)
    assert (decision.displaced, found.rejected) == ("r2", 1)


def test_who_is_sent_away_hears_when_to_come_back() -> None:
    found = admission()
    found.limit.rate = 0.5
    for n in range(5):
        found.arrive(f"r{n}", 0, NEVER, 0)
    assert found.arrive("late", 0, NEVER, 0) == Reject(8, [])
    error = AtCapacity("iris@1.0.0", 8)
    assert (error.status, error.code, error.retry_after_s) == (503, "at_capacity", 8)
    assert "retry after 8 s" in error.sentence


def test_measurement_ends_with_its_last_answer_where_somebody_waits() -> None:
    found = admission(min_rtt={"request_count": 1})
    for n in range(3):
        found.arrive(f"r{n}", 0, NEVER, 0)
    found.limit.leave(0, 10 * MS)
    found.release(10 * MS)
    assert not found.limit.measuring


# The limit


def fed(limit: GradientLimit, now: int, ms: float, answers: int) -> int:
    """Answers of so many milliseconds, one after another, an update after each. The time at the end."""
    for _ in range(answers):
        assert limit.enter()
        started, now = now, now + int(ms * MS)
        limit.leave(started, now)
        limit.update(now)
    return now


def at_rest(ms: float = 10.0, **spec: Any) -> tuple[GradientLimit, int]:
    """A limit that has measured a version at rest."""
    limit = GradientLimit(parse(AdmissionSpec, spec, "admission"), 0, lambda: 0.0)
    now = fed(limit, 0, ms, 50)
    assert not limit.measuring
    return limit, now


def full_interval(limit: GradientLimit, now: int, ms: float) -> int:
    """An interval in which the limit was reached, all answers being so slow."""
    started = now
    entered = 0
    while limit.enter():
        entered += 1
    now += max(100 * MS, int(ms * MS))
    for _ in range(max(entered, 10)):
        limit.in_flight += entered < 10
        limit.leave(started, started + int(ms * MS))
    limit.in_flight = 0
    limit.update(now)
    return now


def test_latency_at_rest_is_measured_first_with_few_at_a_time() -> None:
    limit = GradientLimit(AdmissionSpec(), 0)
    assert limit.measuring
    assert [limit.enter() for _ in range(4)] == [True, True, True, False]
    limit, _ = at_rest(10.0)
    assert limit.min_rtt_s == pytest.approx(0.010, rel=0.15)


def test_limit_grows_while_it_is_reached_and_latency_stays() -> None:
    limit, now = at_rest()
    seen = [limit.limit]
    for _ in range(8):
        now = full_interval(limit, now, 10.0)
        seen.append(limit.limit)
    assert seen == sorted(seen)
    assert seen[-1] > 50


def test_limit_that_nobody_reaches_does_not_grow() -> None:
    limit, now = at_rest()
    fed(limit, now, 10.0, 1000)
    assert limit.limit == 3


def test_limit_shrinks_when_latency_rises_and_not_below_the_least() -> None:
    limit, now = at_rest()
    for _ in range(8):
        now = full_interval(limit, now, 10.0)
    before = limit.limit
    now = full_interval(limit, now, 40.0)
    assert limit.limit == pytest.approx(before / 2 + (before / 2) ** 0.5, abs=1)
    for _ in range(3):
        now = full_interval(limit, now, 10_000.0)
    assert 3 <= limit.limit < before / 3


def test_limit_never_passes_the_most() -> None:
    limit, now = at_rest(max_concurrency_limit=20)
    for _ in range(20):
        now = full_interval(limit, now, 10.0)
    assert limit.limit == 20


def test_rest_is_measured_again_from_time_to_time_and_the_limit_comes_back() -> None:
    limit, now = at_rest(min_rtt={"interval_s": 2, "jitter_percent": 0})
    for _ in range(8):
        now = full_interval(limit, now, 10.0)
    before = limit.limit
    now += 2 * S
    limit.update(now)
    assert limit.limit == 3 < before
    fed(limit, now, 20.0, 50)
    assert limit.limit == before
    assert limit.min_rtt_s == pytest.approx(0.020, rel=0.15)


def test_requests_from_before_a_measurement_are_no_part_of_it() -> None:
    limit, now = at_rest(min_rtt={"interval_s": 2, "jitter_percent": 0})
    limit.in_flight = 40
    limit.update(now + 3 * S)
    assert limit.measuring
    for _ in range(40):
        limit.leave(now, now + 3 * S)
    fed(limit, now + 3 * S, 10.0, 50)
    assert limit.min_rtt_s == pytest.approx(0.010, rel=0.15)


def test_jitter_keeps_gateways_from_measuring_together() -> None:
    spec = parse(AdmissionSpec, {"min_rtt": {"interval_s": 10, "jitter_percent": 50}}, "admission")
    early, late = GradientLimit(spec, 0, lambda: 0.0), GradientLimit(spec, 0, lambda: 0.999)
    for limit in (early, late):
        fed(limit, 0, 1.0, 50)
        limit.update(12 * S)
    assert (early.measuring, late.measuring) == (True, False)


def test_slow_model_is_not_measured_for_long() -> None:
    limit = GradientLimit(AdmissionSpec(), 0)
    now = fed(limit, 0, 1000.0, 10)
    assert now == 10 * S
    assert not limit.measuring


def test_stuck_at_the_least_it_asks_whether_rest_has_become_slower() -> None:
    limit, now = at_rest()
    for _ in range(6):
        now = full_interval(limit, now, 100.0)
    assert limit.measuring
    fed(limit, now, 100.0, 50)
    assert limit.min_rtt_s == pytest.approx(0.1, rel=0.15)


def test_few_answers_make_an_interval_longer() -> None:
    limit, now = at_rest()
    fed(limit, now, 1000.0, 9)
    assert limit.rate == 0
    fed(limit, now + 9 * S, 1000.0, 1)
    assert limit.rate == pytest.approx(1.0)


# The document


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"queue": {"priority_levels": 2, "default_priority_level": 3}}, "default_priority_level: there is no level 3"),
        ({"queue": {"level_queue_size": {2: 5}}}, "level_queue_size: there is no level 2"),
        ({"min_concurrency": 5, "max_concurrency_limit": 4}, "min_concurrency"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(document: Any, field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=field):
        parse(AdmissionSpec, document, "admission")
