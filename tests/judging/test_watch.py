"""Who watches: a gateway by itself, call by call, and the coordinator over all of them."""

import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.verdict import VERDICT, Demote
from judging.watch import Survey, Watch
from judging.windows import INVALID_OUTPUT, Counts
from nstarx.spec.demotion import DemotionSpec

POLICY = DemotionSpec()


def watch(policy: DemotionSpec = POLICY) -> Watch:
    """Of a gateway whose stable version has answered a while."""
    return Watch("iris@1.1.0", policy, "iris@1.0.0", calls=0, stable_calls=50_000, stable_failures=20)


def failed(watched: Watch, number: int, status: int = 500) -> Demote | None:
    """The number-th call failed, as all calls before it, while the stable version did well."""
    return watched.failed(status, f"r{number}", number, number / 100, 50_000 + 9 * number, 20)


def test_gateway_finds_a_dead_version_out_after_a_handful_of_calls() -> None:
    watched = watch()
    verdicts = [failed(watched, number) for number in range(1, 6)]
    assert verdicts[:4] == [None] * 4
    verdict = verdicts[4]
    assert verdict is not None
    assert verdict.sentence == (
        "iris@1.1.0 failed 5 calls in a row, while iris@1.0.0 failed 0 of 36 calls (0 %) in the same time."
    )
    assert verdict.evidence.rule == "consecutive_failures"
    assert verdict.evidence.first_failing == ("r1", "r2", "r3", "r4", "r5")
    assert verdict.evidence.window_s == pytest.approx(0.04)


def test_what_is_not_the_versions_fault_is_not_held_against_it() -> None:
    watched = watch()
    assert not any(failed(watched, number, status) for number, status in enumerate([400, 404, 429, 499, 503] * 10, 1))
    assert failed(watched, 60) is None


def test_invalid_outputs_are_held_against_it() -> None:
    watched = watch()
    verdict = next(found for number in range(1, 99) if (found := failed(watched, number, INVALID_OUTPUT)))
    assert verdict.evidence.accused.invalid == verdict.evidence.accused.failures
    assert "(all of these failures were invalid outputs)" in verdict.sentence


def test_version_without_a_stable_one_beside_it_is_told_about_alone() -> None:
    watched = Watch("iris@1.1.0", POLICY)
    verdict = next(found for n in range(1, 99) if (found := watched.failed(500, str(n), n, 0.0)))
    assert verdict.sentence == f"iris@1.1.0 failed {verdict.evidence.accused.failures} calls in a row."
    assert verdict.evidence.stable is None


def test_evidence_names_the_first_ten_failed_calls_since_the_suspicion_began() -> None:
    watched = watch(DemotionSpec(consecutive_failures=40, max_error_rate=None, min_effect=None))
    watched.failed(500, "long ago", 10_000, 0.0, 140_000, 50)
    for n in range(1, 100):
        verdict = watched.failed(500, f"r{n}", 20_000 + n, 100.0 + n, 230_000 + 9 * n, 50)
        if verdict:
            break
    assert verdict is not None
    assert verdict.evidence.accused.failures == 40
    assert verdict.evidence.first_failing == tuple(f"r{n}" for n in range(1, 11))


def test_version_that_comes_back_is_judged_by_what_it_does_from_then_on() -> None:
    watched = watch()
    for number in range(1, 6):
        failed(watched, number)
    watched.reset(5, 1.0, 60_000, 20)
    assert [watched.failed(500, "x", 5 + n, 2.0, 60_000 + 900 * n, 20) for n in range(1, 5)] == [None] * 4
    assert watched.failed(500, "x", 10, 2.0, 64_500, 20) is not None


def test_verdict_survives_json() -> None:
    watched = watch()
    verdict = next(found for number in range(1, 99) if (found := failed(watched, number)))
    assert VERDICT.validate_json(verdict.model_dump_json()) == verdict


def test_calls_from_before_the_watch_began_are_not_taken_for_the_present_split() -> None:
    """Not told where counters stood, it must not believe in a million stable calls for each of the candidate's."""
    for seed in range(20):
        random, watched, stable, failures = np.random.default_rng(seed), Watch("b", POLICY, "a"), 1_000_000, 1000
        for call in range(1, 300):
            stable, failures = stable + 9, failures + int(random.binomial(9, 0.3))
            if random.random() < 0.3:
                assert watched.failed(500, "x", call, 0.0, stable, failures) is None


def test_a_failed_call_costs_less_than_a_millisecond() -> None:
    """It costs some fifty microseconds; the bound leaves room for busy machines."""
    watched = watch()
    numbers = iter(range(1, 10_000))
    seconds = min(timeit.repeat(lambda: watched.failed(500, "id", 1000 * next(numbers), 0.0), number=50, repeat=5)) / 50
    assert seconds < 0.001


# The coordinator

GATEWAYS = st.sampled_from("abc")
REPORTS = st.lists(st.tuples(GATEWAYS, st.integers(1, 300), st.integers(0, 3)), min_size=1, max_size=12)


def surveyed(ticks: list[list[tuple[str, int, int]]], reverse: bool) -> list[object]:
    """Verdicts of a coordinator to which gateways report between ticks, in one order or the other."""
    survey, totals = Survey("iris@1.1.0", POLICY, "iris@1.0.0"), dict.fromkeys("abc", (0, 0))
    said: list[object] = []
    for gateway in "abc":
        survey.report(gateway, Counts(), 0.0)
    for now, reports in enumerate(ticks, 1):
        for gateway, calls, failures in reports:
            before = totals[gateway]
            totals[gateway] = (before[0] + calls, before[1] + min(failures, calls))
        for gateway in reversed("abc") if reverse else "abc":
            calls, failures = totals[gateway]
            ids = [f"{gateway}{n}" for n in range(max(failures - 10, 0), failures)]
            survey.report(gateway, Counts(calls, failures), float(now), Counts(9 * calls), ids)
        said.append((survey.judge(float(now)), survey.readings(float(now))))
    return said


@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_order_in_which_gateways_report_does_not_matter(ticks: list[list[tuple[str, int, int]]]) -> None:
    assert surveyed(ticks, reverse=False) == surveyed(ticks, reverse=True)


def test_coordinator_catches_what_no_gateway_sees_enough_of() -> None:
    """Forty gateways with one failed call in twenty each: none of them has the evidence, all of them together have."""
    survey = Survey("iris@1.1.0", POLICY, "iris@1.0.0")
    watches = [Watch("iris@1.1.0", POLICY, "iris@1.0.0") for _ in range(40)]
    verdict = None
    for now in range(20):
        for gateway, watched in enumerate(watches):
            calls, failures = now * 5 + gateway // 10, (now * 5 + gateway // 10) // 20
            survey.report(str(gateway), Counts(calls, failures), float(now), Counts(9 * calls))
            if calls and calls % 20 == 0:
                assert watched.failed(500, "x", calls, float(now), 9 * calls, 0) is None
        verdict = survey.judge(float(now))
        if isinstance(verdict, Demote):
            break
    assert isinstance(verdict, Demote)
    assert verdict.evidence.rule == "min_effect"


def test_what_a_gateway_counted_before_its_first_report_is_no_news() -> None:
    survey = Survey("iris@1.1.0", POLICY, "iris@1.0.0")
    survey.report("a", Counts(1000, 900), 1.0, Counts(9000, 0), ["old"])
    assert survey.judge(1.0).verdict == "not_enough_data"
    assert survey.readings(1.0).seen.failures == 0


def test_gateway_that_starts_again_or_leaves_does_not_count_backwards() -> None:
    survey = Survey("iris@1.1.0", POLICY, "iris@1.0.0")
    for counts in (Counts(0), Counts(100, 1), Counts(7, 1)):
        survey.report("a", counts, 1.0)
    survey.left("a")
    survey.report("a", Counts(500), 2.0)
    assert (survey.readings(2.0).seen.calls, survey.readings(2.0).seen.failures) == (107, 2)


def test_a_judgement_without_news_uses_up_nothing() -> None:
    survey = Survey("iris@1.1.0", DemotionSpec(max_p99_ms=1), "iris@1.0.0")
    survey.report("a", Counts(), 0.0)
    survey.report("a", Counts(100), 1.0)
    assert survey.readings(1.0).fresh == 100
    survey.judge(1.0)
    assert survey.readings(1.5).fresh == 0
