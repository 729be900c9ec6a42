"""Reports: what a tally means, and when a version is ready to be a canary."""

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judging.comparison import Outcome, compare
from judging.shadow_report import ShadowReport, rate, report
from judging.shadow_tally import OutputTally, ShadowTally
from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.record import parse
from nstarx.spec.shadow import ReadySpec
from tests.judging.shadows import CLASSES, MS, failed, iris, pair, shadow
from tests.serving.codec.strategies import patient

SPEC = shadow(tolerances={"label": CLASSES}, attributes=["x-tenant"])


def tally(compared: int = 0, mismatched: int = 0, shadow_failed: int = 0, ratio: float = 1.0) -> ShadowTally:
    """A tally of so many pairs, whose latencies spread evenly from 1 to 2 ms, times the ratio on the shadow's side."""
    outcomes = {Outcome.compared.value: compared, Outcome.shadow_failed.value: shadow_failed}
    primary, other = [0] * BUCKETS, [0] * BUCKETS
    for n in range(compared):
        nanoseconds = MS + MS * n // compared
        primary[bucket_of(nanoseconds)] += 1
        other[bucket_of(int(ratio * nanoseconds))] += 1
    return ShadowTally(outcomes=outcomes, mismatched=mismatched, primary_latency=primary, shadow_latency=other)


def ready(**changes: Any) -> Any:
    return SPEC.model_copy(update={"ready": ReadySpec(**changes)})


# Verdicts


def test_shadow_that_agrees_is_ready() -> None:
    made = report(tally(compared=2000), SPEC)
    assert made.verdict == "ready"
    assert made.sentence.startswith(
        "Ready to be a canary: 0 % mismatches in 2000 (95 % interval 0 to 0.192 %) within max_mismatch_percent 1 %; "
        "0 % errors in 2000"
    )


def test_first_limit_that_is_broken_is_named() -> None:
    made = report(tally(compared=1000, mismatched=100, shadow_failed=100), SPEC)
    assert made.verdict == "not_ready"
    assert made.sentence == (
        "Not ready: 10 % mismatches in 1000 (95 % interval 8.29 to 12 %) break max_mismatch_percent 1 %."
    )
    made = report(tally(compared=1000, shadow_failed=100), SPEC)
    assert made.sentence.startswith("Not ready: 9.09 % errors in 1100 ")
    made = report(tally(compared=1000, ratio=4), SPEC)
    assert made.sentence.startswith("Not ready: p99 latency 4 times the primary's ")
    assert made.sentence.endswith("break max_latency_ratio 1.5.")


def test_broken_limit_counts_more_than_an_open_one() -> None:
    assert report(tally(compared=1000, mismatched=10, shadow_failed=500), SPEC).verdict == "not_ready"


@pytest.mark.parametrize(
    ("seen", "part"),
    [
        (tally(), "0 pairs say something, and min_compared asks for 1000"),
        (tally(compared=999), "999 pairs"),
        (tally(compared=10, mismatched=10), "10 pairs"),
        (
            tally(compared=1000, mismatched=8),
            "mismatches in 1000 (95 % interval 0.406 to 1.57 %) may be on either side",
        ),
        (tally(compared=1000, shadow_failed=12), "may be on either side of max_error_percent 1 %"),
    ],
)
def test_what_is_not_decided_is_said(seen: ShadowTally, part: str) -> None:
    made = report(seen, SPEC)
    assert made.verdict == "not_enough_data"
    assert part in made.sentence


def test_estimate_below_the_limit_is_not_enough() -> None:
    """0.9 % of 1,000 may well come from 1.5 %; of 100,000 it does not."""
    spec = ready(max_mismatch_percent=1.0)
    assert report(tally(compared=1000, mismatched=9), spec).verdict == "not_enough_data"
    assert report(tally(compared=100_000, mismatched=900), spec).verdict == "ready"


def test_estimate_above_the_limit_is_not_enough_either() -> None:
    assert report(tally(compared=1000, mismatched=11), SPEC).verdict == "not_enough_data"
    assert report(tally(compared=100_000, mismatched=1100), SPEC).verdict == "not_ready"


def test_shadow_that_fails_every_request_is_not_ready_though_nothing_was_compared() -> None:
    made = report(tally(shadow_failed=1000), SPEC)
    assert made.verdict == "not_ready"
    assert "100 % errors" in made.sentence


def test_shadow_without_capacity_says_nothing() -> None:
    seen = ShadowTally(outcomes={Outcome.refused.value: 10_000, Outcome.both_failed.value: 10_000}, sampled=20_000)
    made = report(seen, SPEC)
    assert (made.verdict, made.refused, made.both_failed) == ("not_enough_data", 10_000, 10_000)


def test_latency_can_be_left_out() -> None:
    slow = tally(compared=1000, ratio=4)
    assert report(slow, ready(max_latency_ratio=None)).verdict == "ready"


def test_few_pairs_do_not_tell_a_p99() -> None:
    made = report(tally(compared=300), ready(min_compared=100, max_mismatch_percent=5, max_error_percent=5))
    assert made.verdict == "not_enough_data"
    assert "too few pairs" in made.sentence
    assert (made.latency.p99_ratio, made.latency.p99_ratio_low) == (1.0, None)


def test_shadow_that_is_not_compared_is_judged_by_errors_and_latency() -> None:
    seen = tally(compared=1000)
    seen.outcomes = {Outcome.answered.value: 1000}
    assert report(seen, SPEC).verdict == "not_enough_data"
    made = report(seen, SPEC.model_copy(update={"compare": False}))
    assert (made.verdict, made.not_compared) == ("ready", 1000)
    assert "mismatches" not in made.sentence


@patient
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 300))
def test_more_mismatches_never_make_it_readier(compared: int, mismatched: int, failures: int, more: int) -> None:
    order = ("not_ready", "not_enough_data", "ready")
    few, many = sorted((min(mismatched, compared), min(mismatched + more, compared)))
    better, worse = report(tally(compared, few, failures), SPEC), report(tally(compared, many, failures), SPEC)
    assert order.index(worse.verdict) <= order.index(better.verdict)


# Contents


def test_known_rate_in_one_slice_is_found_there() -> None:
    """A model that differs on 7.3 % of 3,000 requests, all of one tenant; the shadow sees half of them."""
    seen = ShadowTally(SPEC.examples)
    for n in random.Random(1).sample(range(3000), 1500):
        tenant = "acme" if n % 10 < 2 else f"tenant-{n % 7}"
        wrong = n % 10 < 2 and n < 1091
        copied = pair(f"r{n}", iris(0), iris(1 if wrong else 0, version="1.1.0"), values=(tenant,))
        seen.add(copied, compare(copied.primary, copied.shadow, SPEC), SPEC)
    made = report(seen, SPEC)
    assert made.mismatch.of == 1500
    assert made.mismatch.low < 7.3 < made.mismatch.high < 9
    worst, *others = made.slices
    assert (worst.attribute, worst.value, worst.mismatch.count) == ("x-tenant", "acme", made.mismatch.count)
    assert not any(other.mismatch.count for other in others)


def test_outputs_come_with_means_over_all_compared_pairs() -> None:
    seen = tally(compared=1000, mismatched=10)
    seen.outputs = {
        "a": OutputTally(mismatches=1, kinds={"numbers": 1}, max_absolute=5, sum_absolute=10, sum_relative=1),
        "b": OutputTally(mismatches=9, kinds={"classes": 9}, confusion={"0": {"1": 2, "2": 7}}),
    }
    b, a = report(seen, SPEC).outputs
    assert (a.output, a.mean_absolute, a.mean_relative, a.mismatch.of) == ("a", 0.01, 0.001, 1000)
    assert [(pair.primary, pair.shadow, pair.rows) for pair in b.confusion] == [("0", "2", 7), ("0", "1", 2)]


def test_latency_is_told_for_both_sides() -> None:
    latency = report(tally(compared=1000, ratio=2), SPEC).latency
    assert latency.primary_p50_s == pytest.approx(0.0015, rel=0.13)
    assert latency.p50_difference_s == pytest.approx(0.0015, rel=0.13)
    assert latency.p99_ratio == pytest.approx(2, rel=0.01)
    assert latency.p99_ratio_low is not None
    assert latency.p99_ratio_high is not None
    assert latency.p99_ratio_low < 2 < latency.p99_ratio_high


def test_report_of_nothing() -> None:
    made = report(ShadowTally(), SPEC)
    assert (made.verdict, made.mismatch, made.outputs) == ("not_enough_data", rate(0, 0), ())
    assert (made.mismatch.percent, made.mismatch.low, made.mismatch.high) == (None, 0.0, 100.0)
    assert made.latency.primary_p50_s is None


def test_report_survives_json() -> None:
    seen = ShadowTally(SPEC.examples)
    for other in (iris(1), failed(), iris(scores=(0.5, 0.5, 0.0))):
        made = pair(primary=iris(), other=other, values=("acme",))
        seen.add(made, compare(made.primary, made.shadow, SPEC), SPEC)
    whole = report(seen, SPEC)
    assert parse(ShadowReport, orjson.loads(orjson.dumps(whole.model_dump(mode="json"))), "report") == whole
    assert (len(whole.examples), len(whole.failures)) == (2, 1)
