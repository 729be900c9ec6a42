"""Stories of versions, as the coordinator sees them: what is told is what a person would say too."""

import pytest

from judging.standing import Standing, share
from judging.verdict import Demote
from judging.windows import INVALID_OUTPUT
from nstarx.spec.demotion import DemotionSpec
from tests.judging.drama import CANDIDATE, Second, Stage

GOOD = Second(fails_every=1000)
BAD = Second(fails_every=20)
DEAD = Second(fails_every=1)


def demoted(stage: Stage) -> bool:
    return stage.standing.state == "demoted"


def test_bad_release_is_demoted_within_seconds_with_the_numbers_that_speak_against_it() -> None:
    stage = Stage().play([GOOD] * 60)
    assert stage.states == ["healthy"]
    stage.until(demoted, BAD, most=6)
    evidence = stage.standing.evidence
    assert evidence is not None
    assert evidence.rule == "min_effect"
    assert evidence.statistic >= evidence.threshold
    assert evidence.stable is not None
    assert evidence.accused.error_rate > 0.02 > 10 * evidence.stable.error_rate
    assert 0 < len(evidence.first_failing) <= 10
    assert evidence.sentence.startswith("iris@1.1.0 failed ")
    assert ", while iris@1.0.0 failed " in evidence.sentence
    assert evidence.sentence.endswith(": more than 1.5 times as often plus 0.2 %, and more than chance explains.")


def test_dead_release_is_demoted_at_once() -> None:
    stage = Stage().play([GOOD] * 60).until(demoted, DEAD, most=2)
    assert stage.standing.reason is not None
    assert "iris@1.1.0 failed" in stage.standing.reason


def test_slow_release_is_demoted_for_being_slower_than_the_stable_version() -> None:
    stage = Stage(DemotionSpec(max_p99_ratio=2.0)).play([Second()] * 30)
    assert stage.states == ["healthy"]
    stage.until(demoted, Second(ms=50.0), most=10)
    evidence = stage.standing.evidence
    assert evidence is not None
    assert evidence.rule == "max_p99_ratio"
    assert evidence.accused.p99_ms == pytest.approx(50.0, rel=0.2)
    assert evidence.statistic > evidence.threshold
    assert "more than 2 times the 5." in evidence.sentence


def test_slow_release_is_demoted_for_being_slower_than_it_may_be() -> None:
    stage = Stage(DemotionSpec(max_p99_ms=20)).play([Second()] * 30).until(demoted, Second(ms=50.0), most=10)
    assert stage.standing.reason is not None
    assert stage.standing.reason.endswith("more than the 20 ms that max_p99_ms bears.")


def test_one_pause_is_no_reason() -> None:
    stage = Stage(DemotionSpec(max_p99_ms=20, max_p99_ratio=2.0))
    stage.play([Second()] * 30).play([Second(ms=200.0)]).play([Second()] * 60)
    assert stage.states == ["healthy"]


def test_slow_dependency_shared_by_both_is_nobodys_fault() -> None:
    stage = Stage(DemotionSpec(max_p99_ms=20, max_p99_ratio=2.0))
    stage.play([Second()] * 30).play([Second(ms=200.0, stable_ms=200.0)] * 60)
    assert stage.states == ["healthy"]


@pytest.mark.parametrize("every", [1, 2, 5, 20])
def test_flaky_dependency_shared_by_both_demotes_nobody(every: int) -> None:
    shared = Second(fails_every=every, stable_fails_every=every)
    stage = Stage().play([GOOD] * 60).play([shared] * 60).play([GOOD] * 60)
    assert "demoted" not in stage.states
    assert not any(isinstance(verdict, Demote) for verdict in stage.told)


def test_candidate_as_flaky_as_the_stable_version_is_kept_however_flaky_that_is() -> None:
    stage = Stage().play([Second(fails_every=5, stable_fails_every=5)] * 300)
    assert "demoted" not in stage.states


def test_tiny_traffic_is_judged_when_there_is_enough_of_it() -> None:
    quiet = Second(calls=1, stable_calls=10)
    stage = Stage().play([quiet] * 40)
    assert {verdict.verdict for verdict in stage.told} == {"not_enough_data"}
    assert stage.told[-1].model_dump()["sentence"] == "iris@1.1.0 had 40 calls in 200 s; a verdict needs 50."
    stage.play([quiet] * 40)
    assert stage.told[-1].verdict == "keep"
    stage.until(demoted, Second(calls=1, stable_calls=10, fails_every=1), most=30)


def test_no_data_is_no_verdict() -> None:
    stage = Stage().play([Second(calls=0)] * 30)
    assert {verdict.verdict for verdict in stage.told} == {"not_enough_data"}
    assert stage.states == ["healthy"]


def test_fixed_version_comes_back_on_probation() -> None:
    stage = Stage().play([GOOD] * 60).until(demoted, DEAD)
    stage.until(lambda stage: stage.standing.state == "healthy", Second(calls=10_000))
    assert stage.states == ["healthy", "demoted", "probation", "healthy"]
    assert stage.now == pytest.approx(62 + 30 + 7 * 30, abs=2)


def test_version_without_traffic_stays_on_probation() -> None:
    stage = Stage().play([GOOD] * 60).until(demoted, DEAD).play([Second(calls=10)] * 3600)
    assert stage.standing.state == "probation"
    assert share(stage.standing) == 0.01


def test_version_that_is_not_fixed_is_given_up() -> None:
    stage = Stage().play([GOOD] * 60)
    stage.until(lambda stage: stage.standing.state == "given_up", Second(calls=10_000, fails_every=1))
    assert stage.states == ["healthy", "demoted", "probation", "demoted", "probation", "given_up"]
    stage.play([GOOD] * 600)
    assert stage.states[-1] == "given_up"
    assert stage.standing.demotions == 3


def test_invalid_outputs_are_failures_and_are_named() -> None:
    stage = Stage().play([Second()] * 60).until(demoted, Second(fails_every=10, status=INVALID_OUTPUT))
    assert stage.standing.reason is not None
    assert "(all of these failures were invalid outputs)" in stage.standing.reason


def test_timeouts_are_failures_and_are_named() -> None:
    stage = Stage().play([Second()] * 60).until(demoted, Second(fails_every=10, status=504))
    assert stage.standing.reason is not None
    assert "(all of these failures were timeouts)" in stage.standing.reason


@pytest.mark.parametrize("status", [400, 404, 429, 499, 503])
def test_callers_that_are_wrong_and_overload_demote_nobody(status: int) -> None:
    stage = Stage().play([Second(fails_every=2, status=status)] * 60)
    assert stage.states == ["healthy"]


def test_policy_that_only_observes_says_what_it_would_do() -> None:
    stage = Stage(DemotionSpec(enforce=False)).play([GOOD] * 60).play([DEAD] * 5)
    assert stage.states == ["healthy", "suspected"]
    assert share(stage.standing) == 1.0
    assert isinstance(stage.told[-1], Demote)


def test_sick_fallback_keeps_a_bad_version_in_traffic() -> None:
    stage = Stage(fallback=Standing(state="suspected")).play([GOOD] * 60).play([DEAD] * 5)
    assert stage.states == ["healthy", "suspected"]
    assert stage.standing.reason is not None
    assert stage.standing.reason.endswith("iris@1.0.0, which would take its traffic, is suspected itself.")


def test_healthy_version_is_told_to_be_kept() -> None:
    stage = Stage().play([GOOD] * 60)
    assert stage.told[-1].verdict == "keep"
    sentence = stage.told[-1].model_dump()["sentence"]
    assert sentence.startswith(f"{CANDIDATE} had 1,000 calls in 10 s, of which ")
    assert sentence.endswith(" failed; nothing is proven against it.")
