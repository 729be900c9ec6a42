"""When a version is too slow, and when nobody can know."""

import numpy as np
import pytest

from judging.latency import latency_evidence
from judging.readings import Readings, Span
from judging.sequential import NOTHING, begin
from judging.windows import Counts, Failing, Window
from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.demotion import DemotionSpec

BOTH = DemotionSpec(max_p99_ms=100, max_p99_ratio=2.0)


def window(ms: dict[float, int], failing: tuple[Failing, ...] = ()) -> Window:
    """Ten seconds with so many calls at each time."""
    latency = [0] * BUCKETS
    for time, calls in ms.items():
        latency[bucket_of(int(time * 1e6))] += calls
    return Window(10.0, Counts.of({200: sum(ms.values())}, latency), failing)


def readings(
    accused: Window, stable: Window, halves: tuple[Window, Window] | None = None, fresh: int = 100
) -> Readings:
    span = Span(accused, stable, halves or (accused, accused))
    return Readings("iris@1.1.0", "iris@1.0.0", begin(BOTH), NOTHING, recent=accused, spans=(span,), fresh=fresh)


QUICK, QUICK_STABLE = window({5.0: 1000}), window({5.0: 9000})


def test_quick_version_is_left_alone() -> None:
    assert latency_evidence(readings(QUICK, QUICK_STABLE), BOTH, 1.0) is None


def test_slow_tail_is_told_with_the_numbers_a_person_can_check() -> None:
    slow = window({5.0: 900, 300.0: 100}, (Failing(0.5, "r1"),))
    evidence = latency_evidence(readings(slow, QUICK_STABLE), BOTH, 1.0)
    assert evidence is not None
    assert (evidence.rule, evidence.limit, evidence.window_s) == ("max_p99_ms", 100.0, 10.0)
    assert evidence.statistic > 200
    assert evidence.first_failing == ("r1",)
    assert evidence.sentence.startswith("1 % of 1,000 calls to iris@1.1.0 in 10 s took ")


def test_slow_tail_of_one_call_in_a_hundred_is_what_a_99th_percentile_bears() -> None:
    assert latency_evidence(readings(window({5.0: 985, 300.0: 15}), QUICK_STABLE), BOTH, 1.0) is None


def test_few_calls_have_to_be_slower_to_tell() -> None:
    few, most = window({5.0: 52, 300.0: 8}), window({5.0: 30, 300.0: 30})
    assert latency_evidence(readings(few, QUICK_STABLE), BOTH, 1.0) is None
    assert latency_evidence(readings(most, QUICK_STABLE), BOTH, 1.0) is not None
    assert latency_evidence(readings(window({300.0: 49}), QUICK_STABLE), BOTH, 1.0) is None


def test_slower_than_the_stable_version_is_reason_enough() -> None:
    evidence = latency_evidence(readings(window({5.0: 900, 50.0: 100}), QUICK_STABLE), BOTH, 1.0)
    assert evidence is not None
    assert evidence.rule == "max_p99_ratio"
    assert "that iris@1.0.0 stayed below in the same time." in evidence.sentence


def test_stable_version_with_few_calls_is_no_measure() -> None:
    assert latency_evidence(readings(window({5.0: 900, 50.0: 100}), window({5.0: 900})), BOTH, 1.0) is None


def test_both_slow_is_nobodys_fault() -> None:
    slow, slow_stable = window({5.0: 900, 300.0: 100}), window({5.0: 8100, 300.0: 900})
    assert latency_evidence(readings(slow, slow_stable), BOTH, 1.0) is None


def test_one_pause_in_one_half_is_no_reason() -> None:
    slow = window({5.0: 900, 300.0: 100})
    assert latency_evidence(readings(slow, QUICK_STABLE, (QUICK, slow)), BOTH, 1.0) is None


def test_without_new_calls_there_is_no_new_judgement() -> None:
    slow = window({5.0: 900, 300.0: 100})
    assert latency_evidence(readings(slow, QUICK_STABLE, fresh=0), BOTH, 1.0) is None


def test_rules_that_are_off_are_not_asked() -> None:
    slow = window({5.0: 900, 300.0: 100})
    assert latency_evidence(readings(slow, QUICK_STABLE), DemotionSpec(), 1.0) is None


@pytest.mark.parametrize("seed", range(3))
def test_healthy_version_is_hardly_ever_called_slow(seed: int) -> None:
    """At the very limit, with a hundred times as many false alarms as by default, over many windows."""
    policy, random, alarms, runs = DemotionSpec(max_p99_ms=100, false_alarm=0.1), np.random.default_rng(seed), 0, 300
    for _ in range(runs):
        slow = int(random.binomial(1000, 0.01))
        found = window({5.0: 1000 - slow, 300.0: slow})
        alarms += latency_evidence(readings(found, QUICK_STABLE, fresh=1000), policy, 1.0) is not None
    assert alarms == 0
