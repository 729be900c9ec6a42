"""Sample-ratio mismatch: a split that is kept is hardly ever accused, one that is not is found."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.ratio import ALPHA, CONCENTRATION, Ratio

HALVES = {"a": 1.0, "b": 1.0}
BATCH = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))


def drawn(rng: np.random.Generator, n: int, shares: dict[str, float]) -> dict[str, int]:
    chances = np.array(list(shares.values())) / sum(shares.values())
    return dict(zip(shares, map(int, rng.multinomial(n, chances)), strict=True))


def watched(
    rng: np.random.Generator, batches: int, n: int, real: dict[str, float], declared: dict[str, float]
) -> Ratio:
    ratio = Ratio()
    for _ in range(batches):
        ratio = ratio.counted(drawn(rng, n, real), declared)
    return ratio


def test_a_split_that_is_kept_is_hardly_ever_accused_though_looked_at_after_every_batch() -> None:
    rng, alpha, runs = np.random.default_rng(1), 0.05, 2000
    alarms = sum(watched(rng, 40, 500, HALVES, HALVES).verdict(alpha).alarm for _ in range(runs))
    assert 0 < alarms / runs <= alpha


def test_a_split_whose_weights_drift_is_hardly_ever_accused() -> None:
    rng, alpha, runs, alarms = np.random.default_rng(2), 0.05, 500, 0
    for _ in range(runs):
        ratio = Ratio()
        for step in range(40):
            weights = {"a": 1.0, "b": 0.1 + 0.1 * step, "c": 2.0}
            ratio = ratio.counted(drawn(rng, 500, weights), weights)
        alarms += ratio.verdict(alpha).alarm
    assert alarms / runs <= alpha


def test_an_arm_that_loses_one_assignment_in_twenty_is_found() -> None:
    ratio = watched(np.random.default_rng(3), 200, 500, {"a": 1.0, "b": 0.95}, HALVES)
    verdict = ratio.verdict()
    assert verdict.alarm
    assert verdict.log_evidence > math.log(1 / ALPHA)
    assert verdict.sentence.startswith("the split is broken: ")
    assert "of 100000 assignments where 50000 were due" in verdict.sentence


def test_a_loss_is_found_though_a_bandit_changes_the_weights_all_the_time() -> None:
    rng, ratio = np.random.default_rng(4), Ratio()
    for step in range(400):
        share = 0.3 + 0.4 * math.sin(step / 20) ** 2
        ratio = ratio.counted(drawn(rng, 500, {"a": 1 - share, "b": 0.93 * share}), {"a": 1 - share, "b": share})
    assert ratio.verdict().alarm


def test_an_alarm_stays_after_the_split_is_mended() -> None:
    ratio = Ratio().counted({"a": 900, "b": 600}, HALVES)
    assert ratio.verdict().alarm
    mended = ratio.counted({"a": 50_000, "b": 50_000}, HALVES)
    assert mended.log_evidence < ratio.log_evidence
    assert mended.verdict().alarm


def test_a_split_that_counts_instead_of_rolling_dice_is_not_accused() -> None:
    ratio = Ratio()
    for _ in range(1000):
        ratio = ratio.counted({"a": 90, "b": 10}, {"a": 9.0, "b": 1.0})
    assert ratio.verdict() == ratio.verdict(0.5)
    assert ratio.verdict().sentence == "the arms get the shares that are due"


def test_an_arm_without_weight_must_get_nothing() -> None:
    weights = {"a": 1.0, "b": 1.0, "off": 0.0}
    assert not Ratio().counted({"a": 1, "b": 1}, weights).verdict().alarm
    strayed = Ratio().counted({"a": 1, "b": 1, "off": 1}, weights)
    assert strayed.verdict().alarm
    assert json.loads(json.dumps(strayed.to_json()))["log_evidence"] > 0


def test_two_assignments_prove_nothing() -> None:
    assert not Ratio().counted({"a": 2}, HALVES).verdict().alarm
    assert Ratio().counted({}, HALVES).log_evidence == 0


@given(st.lists(BATCH, max_size=5))
def test_batches_multiply_to_the_bayes_factor_of_all_counts_at_once(batches: list[tuple[int, int, int]]) -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    ratio = Ratio()
    for batch in batches:
        ratio = ratio.counted(dict(zip(shares, batch, strict=True)), shares)
    totals = [sum(batch[arm] for batch in batches) for arm in range(3)]
    expected = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + sum(totals))
    for share, count in zip(shares.values(), totals, strict=True):
        prior = CONCENTRATION * share
        expected += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    assert ratio.log_evidence == pytest.approx(expected, abs=1e-6)


@given(st.lists(BATCH, max_size=5))
def test_counts_survive_a_restart(batches: list[tuple[int, int, int]]) -> None:
    ratio = Ratio()
    for batch in batches:
        ratio = ratio.counted(dict(zip("abc", batch, strict=True)), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert Ratio.from_json(json.loads(json.dumps(ratio.to_json()))) == ratio
