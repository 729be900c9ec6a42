"""Results: experiments from their start to a winner, and all the ways of not having one."""

import json
from typing import Any

import numpy as np
import orjson
import pytest

from judging.bandit import shares
from judging.experiment import Arm, Experiment
from judging.moments import Moments
from judging.ratio import Ratio
from judging.winner import Result, result
from nstarx.spec.experiment import ExperimentSpec, OutcomeRecord
from nstarx.spec.record import parse

OLD, NEW, OTHER = "iris@1.0.0", "iris@1.1.0", "iris@2.0.0"
PURCHASE = {"metric": "purchase", "kind": "binary", "direction": "increase", "min_effect": 0.02}
LATENCY = {"metric": "latency_ms", "kind": "continuous", "direction": "decrease", "max_harm": 5}


def spec(**more: Any) -> ExperimentSpec:
    document = {"name": "checkout", "arms": {OLD: 1, NEW: 1}, "control": OLD, "primary": PURCHASE, **more}
    return parse(ExperimentSpec, document, "test")


def hits(n: int, rate: float) -> Moments:
    return Moments(n, rate * n, rate * n)


def around(mean: float, n: int = 10_000, deviation: float = 10.0) -> Moments:
    return Moments(n, n * mean, n * (mean**2 + deviation**2))


def seen(arms: dict[str, dict[str, Moments]], assigned: dict[str, int] | None = None) -> Experiment:
    even = dict.fromkeys(arms, 10_000)
    ratio = Ratio().counted(assigned or even, dict.fromkeys(arms, 1.0))
    return Experiment("checkout", 0.0, arms={name: Arm(metrics) for name, metrics in arms.items()}, ratio=ratio)


def judged(experiment: Experiment, now: float = 60.0, **more: Any) -> Result:
    return result(experiment, spec(**more), now)


def purchases(old: Moments, new: Moments) -> Experiment:
    return seen({OLD: {"purchase": old}, NEW: {"purchase": new}})


def test_an_experiment_from_its_start_to_a_winner() -> None:
    """Callers come one by one, half to each version; some buy, and say so late, twice, or before they are known."""
    rng, wanted = np.random.default_rng(3), spec(guardrails=[LATENCY])
    experiment, verdicts = Experiment("checkout", started_s=0.0), []
    for minute in range(60):
        callers = {f"{minute}-{place}": (OLD, NEW)[place % 2] for place in range(200)}
        outcomes = [
            OutcomeRecord(assignment=caller, metric=metric, value=value)
            for caller, arm in callers.items()
            for metric, value in (
                ("purchase", float(rng.random() < (0.25 if arm == NEW else 0.15))),
                ("latency_ms", float(rng.normal(20, 5))),
            )
        ]
        for outcome in outcomes[::2]:
            experiment.record(outcome)
        experiment.expose(callers, wanted.arms)
        for outcome in outcomes:
            experiment.record(outcome)
        experiment = Experiment.from_json(orjson.loads(orjson.dumps(experiment.to_json())))
        verdicts.append(result(experiment, wanted, 60.0 * minute))
        if verdicts[-1].winner:
            break
    assert [verdict.verdict for verdict in verdicts[:-1]] == ["undecided"] * (len(verdicts) - 1)
    last = verdicts[-1]
    assert 3 < len(verdicts) < 40
    assert (last.verdict, last.winner, last.valid, last.overdue) == ("winner", NEW, True, False)
    assert last.effects[0].low <= 0.10 <= last.effects[0].high
    assert last.guardrails[0].verdict == "held"
    assert last.means[1].assigned == last.means[1].observations == 100 * len(verdicts)
    assert last.sentence.startswith(f"'{NEW}' wins: purchase is 0.")
    assert "higher with 'iris@1.1.0' than with 'iris@1.0.0' (95 % sure of +0." in last.sentence


def test_a_bandit_finds_the_winner_with_fewer_callers_on_the_worse_arm() -> None:
    rng, wanted = np.random.default_rng(2), spec(bandit={"enabled": True, "floor_percent": 10})
    weights, arms, ratio = dict(wanted.arms), {OLD: Moments(), NEW: Moments()}, Ratio()
    for _ in range(60):
        counts = rng.multinomial(200, np.array(list(weights.values())) / sum(weights.values()))
        assigned = dict(zip(weights, map(int, counts), strict=True))
        ratio = ratio.counted(assigned, weights)
        for arm, rate in ((OLD, 0.15), (NEW, 0.3)):
            bought = int(rng.binomial(assigned[arm], rate))
            arms[arm] += Moments(assigned[arm], bought, bought)
        weights = shares(wanted.primary, arms, wanted.bandit.floor_percent / 100, rng)
    state = Experiment(
        "checkout", 0.0, arms={name: Arm({"purchase": sums}) for name, sums in arms.items()}, ratio=ratio
    )
    found = result(state, wanted, 0.0)
    assert (found.winner, found.valid) == (NEW, True)
    assert ratio.assigned[NEW] > 4 * ratio.assigned[OLD]


def test_the_control_wins_when_the_other_arm_is_worse() -> None:
    found = judged(purchases(hits(10_000, 0.3), hits(10_000, 0.2)))
    assert (found.verdict, found.winner) == ("winner", OLD)
    assert "purchase is 0.1 lower with 'iris@1.1.0'" in found.sentence


def test_no_difference_is_a_result_once_the_interval_is_too_small_to_matter() -> None:
    found = judged(purchases(hits(100_000, 0.3), hits(100_000, 0.301)))
    assert (found.verdict, found.winner) == ("no_difference", None)
    assert -0.02 <= found.effects[0].low <= found.effects[0].high <= 0.02
    assert found.sentence.startswith("no arm differs for the better by more than 0.02: ")
    assert judged(
        purchases(hits(100_000, 0.3), hits(100_000, 0.301)), primary=PURCHASE | {"min_effect": 0}
    ).verdict == ("undecided")


def test_a_difference_too_small_to_matter_is_none_even_when_it_is_certain() -> None:
    found = judged(purchases(hits(1_000_000, 0.3), hits(1_000_000, 0.31)))
    assert found.effects[0].low > 0
    assert found.verdict == "no_difference"


def test_with_few_outcomes_nothing_is_decided() -> None:
    found = judged(purchases(hits(100, 0.2), hits(100, 0.25)))
    assert (found.verdict, found.winner, found.valid) == ("undecided", None, True)
    assert found.sentence.startswith("undecided: purchase is 0.05 higher")


def test_before_the_first_outcome_everything_is_open_and_can_be_sent_as_json() -> None:
    found = judged(Experiment("checkout", 0.0), guardrails=[LATENCY])
    assert found.verdict == "undecided"
    assert "has too few outcomes that differ" in found.sentence
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["guardrails"][0]["low"] is None
    assert document["effects"][0]["difference"] is None
    assert document["means"][0] == {
        "arm": OLD, "assigned": 0, "observations": 0, "mean": None,
        "low": pytest.approx(0, abs=1e-9), "high": pytest.approx(1),
    }  # fmt: skip


def with_latency(old: Moments, new: Moments) -> Result:
    arms = {
        OLD: {"purchase": hits(10_000, 0.2), "latency_ms": old},
        NEW: {"purchase": hits(10_000, 0.3), "latency_ms": new},
    }
    return judged(seen(arms), guardrails=[LATENCY])


def test_an_arm_that_breaks_a_guardrail_does_not_win() -> None:
    found = with_latency(around(20), around(30))
    assert (found.verdict, found.winner) == ("undecided", None)
    assert (found.effects[0].verdict, found.guardrails[0].verdict) == ("better", "broken")
    assert "latency_ms is 10 higher" in found.sentence
    assert found.sentence.endswith("which breaks its guardrail")


def test_a_guardrail_tolerates_the_harm_that_it_says() -> None:
    tolerated = with_latency(around(20), around(23))
    assert (tolerated.winner, tolerated.guardrails[0].verdict) == (NEW, "held")
    improved = with_latency(around(20), around(2))
    assert (improved.winner, improved.guardrails[0].verdict) == (NEW, "held")
    open_yet = with_latency(around(20, n=200), around(25, n=200))
    assert (open_yet.winner, open_yet.guardrails[0].verdict) == (NEW, "undecided")


def test_a_broken_split_invalidates_every_verdict() -> None:
    state = seen({OLD: {"purchase": hits(9000, 0.2)}, NEW: {"purchase": hits(9000, 0.3)}}, {OLD: 12_000, NEW: 9_000})
    found = judged(state)
    assert (found.verdict, found.winner, found.valid) == ("undecided", None, False)
    assert found.effects[0].verdict == "better"
    assert found.sentence.startswith("not valid: the split is broken: ")


def test_an_experiment_past_its_time_says_so_whatever_its_verdict() -> None:
    state = purchases(hits(100, 0.2), hits(100, 0.25))
    assert not judged(state, 3599.0, max_duration_s=3600).overdue
    late = judged(state, 3600.0, max_duration_s=3600)
    assert late.overdue
    assert late.sentence.endswith("it ran for its longest time, stop it")


def three(old: float, new: float, other: float, n: int = 100_000) -> Result:
    rates = {OLD: old, NEW: new, OTHER: other}
    state = seen({arm: {"purchase": hits(n, rate)} for arm, rate in rates.items()})
    return judged(state, arms=dict.fromkeys(rates, 1))


def test_of_several_arms_the_best_of_those_that_beat_the_control_wins() -> None:
    assert three(0.2, 0.3, 0.4).winner == OTHER
    assert three(0.2, 0.3, 0.1).winner == NEW
    assert three(0.4, 0.3, 0.2).winner == OLD
    assert three(0.2, 0.2, 0.1).verdict == "no_difference"
    assert three(0.2, 0.2, 0.25, n=500).verdict == "undecided"


def test_more_arms_ask_for_more_evidence() -> None:
    two = judged(purchases(hits(5000, 0.2), hits(5000, 0.25))).effects[0]
    of_three = three(0.2, 0.25, 0.2, n=5000).effects[0]
    assert of_three.low < two.low < two.high < of_three.high


def test_where_less_is_better_the_lower_arm_wins() -> None:
    primary = {"metric": "latency_ms", "kind": "continuous", "direction": "decrease", "min_effect": 1}
    state = seen({OLD: {"latency_ms": around(30)}, NEW: {"latency_ms": around(20)}})
    found = judged(state, primary=primary)
    assert (found.winner, found.effects[0].verdict) == (NEW, "better")
    assert found.effects[0].difference == pytest.approx(-10)
