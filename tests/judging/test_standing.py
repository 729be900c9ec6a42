"""What becomes of a version after verdicts, told as stories on a clock that is passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.standing import (
    STATES,
    Judged,
    Standing,
    advance,
    may_demote,
    on_clock,
    share,
    starts_anew,
    undone,
)
from judging.verdict import Demote, Evidence, Figures, Keep, NotEnoughData
from nstarx.spec.demotion import DemotionSpec

POLICY = DemotionSpec()
EVIDENCE = Evidence(
    rule="min_effect",
    at=1.0,
    window_s=4.0,
    accused=Figures(version="iris@1.1.0", calls=200, failures=12),
    stable=Figures(version="iris@1.0.0", calls=1800, failures=2),
    statistic=1e10,
    threshold=6e9,
    first_failing=("a", "b"),
    sentence="iris@1.1.0 failed 12 of 200 calls (6 %).",
)
BAD = Demote(evidence=EVIDENCE)
GOOD = Keep(suspicion=0.0, window_s=10.0, calls=1000, failures=0, sentence="Fine.")
DOUBTFUL = Keep(suspicion=0.6, suspected_of="min_effect", window_s=10.0, calls=1000, failures=9, sentence="Hm.")
UNKNOWN = NotEnoughData(window_s=10.0, calls=3, wanted=50, sentence="3 calls.")
WEIGHTS = {"iris@1.0.0": 90.0, "iris@1.1.0": 10.0}

VERDICTS = st.sampled_from([BAD, GOOD, DOUBTFUL, UNKNOWN])


def after(*verdicts: tuple[float, Judged], policy: DemotionSpec = POLICY, start: Standing | None = None) -> Standing:
    standing = start or Standing()
    for now, verdict in verdicts:
        standing = advance(standing, verdict, policy, now)
    return standing


def test_version_that_fails_is_demoted_and_comes_back_little_by_little() -> None:
    standing = after((1.0, BAD))
    assert (standing.state, standing.until, share(standing)) == ("demoted", 31.0, 0.0)
    assert standing.evidence == EVIDENCE
    assert advance(standing, GOOD, POLICY, 30.9) == standing
    shares, now = [], 31.0
    while standing.state != "healthy":
        standing = advance(standing, GOOD, POLICY, now)
        shares.append(share(standing))
        now += POLICY.probation_step_s
    assert shares == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert standing.demotions == 1


def test_probation_waits_for_calls_for_missing_data_is_not_success() -> None:
    standing = after((1.0, BAD), (31.0, UNKNOWN))
    assert share(standing) == 0.01
    assert share(after(*((float(now), UNKNOWN) for now in range(60, 6000, 30)), start=standing)) == 0.01


def test_suspicion_holds_probation_up() -> None:
    standing = after((1.0, BAD), (31.0, GOOD), (61.0, DOUBTFUL))
    assert (share(standing), standing.until) == (0.01, 91.0)
    assert share(advance(standing, GOOD, POLICY, 91.0)) == 0.02


def test_version_that_fails_again_is_out_for_longer_and_then_given_up() -> None:
    second = after((0.0, BAD), (30.0, GOOD), (35.0, BAD))
    assert (second.state, second.until) == ("demoted", 95.0)
    third = after((95.0, GOOD), (96.0, BAD), start=second)
    assert (third.state, third.until, share(third)) == ("given_up", None, 0.0)
    assert after((1e9, GOOD), start=third) == third


def test_time_out_of_traffic_has_a_limit() -> None:
    policy = DemotionSpec(demotion_time_s=100, max_demotion_time_s=150, max_demotions=10)
    standing = after((0.0, BAD), (100.0, GOOD), (101.0, BAD), policy=policy)
    assert standing.until == 251.0


def test_old_demotions_are_forgotten_after_a_long_time_in_good_health() -> None:
    standing = Standing(since=100.0, demotions=2)
    assert after((3699.0, GOOD), start=standing).demotions == 2
    assert after((3700.0, GOOD), start=standing).demotions == 0


def test_suspicion_comes_and_goes() -> None:
    standing = after((1.0, DOUBTFUL))
    assert (standing.state, share(standing), standing.reason) == ("suspected", 1.0, "Hm.")
    assert after((2.0, UNKNOWN), start=standing).state == "suspected"
    assert after((10.0, GOOD), start=standing).state == "suspected"
    assert after((11.0, GOOD), start=standing).state == "healthy"


def test_version_that_is_found_guilty_again_and_again_without_consequence_stays_suspected() -> None:
    policy = DemotionSpec(enforce=False)
    verdicts = [(float(now), BAD if now % 5 == 0 else GOOD) for now in range(1, 100)]
    states = [after(*verdicts[: number + 1], policy=policy).state for number in range(5, 99)]
    assert set(states) == {"suspected"}
    assert after(*verdicts, (106.0, GOOD), policy=policy).state == "healthy"


def test_policy_that_only_observes_reports_and_demotes_nobody() -> None:
    standing = after((1.0, BAD), policy=DemotionSpec(enforce=False))
    assert (standing.state, share(standing), standing.demotions) == ("suspected", 1.0, 0)
    assert standing.evidence == EVIDENCE
    assert standing.reason is not None
    assert standing.reason.endswith("It stays: the policy says enforce: false.")


def test_refused_demotion_says_why() -> None:
    refusal = may_demote("iris@1.0.0", {"iris@1.0.0": 1.0}, {}, POLICY)
    standing = advance(Standing(), BAD, POLICY, 1.0, refusal)
    assert (standing.state, share(standing)) == ("suspected", 1.0)
    assert standing.reason is not None
    assert "last healthy version" in standing.reason


def test_refusal_holds_a_version_on_probation_where_it_is() -> None:
    standing = after((0.0, BAD), (30.0, GOOD), (60.0, GOOD))
    held = advance(standing, BAD, POLICY, 90.0, "It stays.")
    assert (held.state, share(held), held.until) == ("probation", 0.02, 120.0)


def test_person_undoes_a_demotion_and_the_version_has_a_grace() -> None:
    standing = undone(POLICY, 100.0)
    assert (share(standing), standing.demotions) == (1.0, 0)
    assert after((159.0, BAD), start=standing).state == "suspected"
    assert after((110.0, BAD), (120.0, GOOD), (159.0, BAD), start=standing).state == "suspected"
    assert after((160.0, BAD), start=standing).state == "demoted"
    assert after((159.0, BAD), (160.0, BAD), start=standing).state == "demoted"


def test_evidence_starts_anew_when_a_version_comes_back_to_traffic() -> None:
    demoted = after((0.0, BAD))
    probation = after((30.0, GOOD), start=demoted)
    assert starts_anew(demoted, probation)
    assert starts_anew(demoted, undone(POLICY, 5.0))
    assert not starts_anew(probation, after((60.0, GOOD), start=probation))
    assert not starts_anew(Standing(), demoted)


def test_standing_moves_to_another_clock() -> None:
    moved = on_clock(after((1.0, BAD)), 1000.0)
    assert (moved.since, moved.until) == (1001.0, 1031.0)
    assert on_clock(Standing(), 5.0).until is None


@given(st.lists(st.tuples(st.floats(0, 400), VERDICTS), max_size=30))
def test_whatever_the_verdicts_standing_is_sound_survives_json_and_stays_without_news(
    steps: list[tuple[float, Judged]],
) -> None:
    standing, now = Standing(), 0.0
    for wait, verdict in steps:
        now += wait
        standing = advance(standing, verdict, POLICY, now)
        assert standing.state in STATES
        assert 0.0 <= share(standing) <= 1.0
        assert standing.demotions <= POLICY.max_demotions
        assert Standing.model_validate_json(standing.model_dump_json()) == standing
        if verdict is not BAD:
            assert advance(standing, verdict, POLICY, now) == standing


# Who may be demoted


def test_candidate_may_be_demoted_beside_a_healthy_stable_version() -> None:
    assert may_demote("iris@1.1.0", WEIGHTS, {}, POLICY, fallback="iris@1.0.0") is None


def test_version_without_traffic_of_its_own_can_be_the_fallback() -> None:
    assert may_demote("iris@1.1.0", {"iris@1.1.0": 1.0, "iris@1.0.0": 0.0}, {}, POLICY, fallback="iris@1.0.0") is None


@pytest.mark.parametrize("state", ["suspected", "demoted", "probation", "given_up"])
def test_nobody_is_demoted_onto_a_sick_fallback(state: str) -> None:
    sick = Standing.model_validate({"state": state})
    weights = {**WEIGHTS, "iris@1.2.0": 5.0}
    refusal = may_demote("iris@1.1.0", weights, {"iris@1.0.0": sick}, POLICY, fallback="iris@1.0.0")
    assert refusal == f"iris@1.1.0 stays: iris@1.0.0, which would take its traffic, is {state} itself."


def test_only_so_much_of_the_traffic_is_demoted_at_once() -> None:
    policy, gone = DemotionSpec(max_demoted_percent=40), {"b": Standing(state="demoted")}
    weights = {"a": 25.0, "b": 25.0, "c": 25.0, "d": 25.0}
    assert may_demote("c", weights, {}, policy) is None
    refusal = may_demote("c", weights, gone, policy)
    assert refusal == "c stays: 50 % of the route's traffic would be demoted; max_demoted_percent allows 40 %."


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(0, 100), min_size=1),
    st.lists(st.tuples(st.sampled_from("abcde"), VERDICTS, st.floats(0, 100)), max_size=40),
)
def test_the_last_healthy_version_of_a_route_is_never_demoted(
    weights: dict[str, float], steps: list[tuple[str, Judged, float]]
) -> None:
    standings, now = {version: Standing() for version in weights}, 0.0
    served = {version for version, weight in weights.items() if weight > 0}
    for version, verdict, wait in steps:
        now += wait
        if version in served:
            refusal = may_demote(version, weights, standings, POLICY)
            standings[version] = advance(standings[version], verdict, POLICY, now, refusal)
            assert any(share(standings[version]) > 0 for version in served)
