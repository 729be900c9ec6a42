"""The delay before a second call follows the latencies of the last seconds."""

from random import Random

import pytest

from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.retry import HedgeSpec
from router.hedge_delay import HedgeDelay

MS = 1_000_000


class Latencies:
    """A cumulative histogram."""

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def add(self, ms: float, times: int = 1) -> "Latencies":
        self.counts[bucket_of(int(ms * MS))] += times
        return self


def test_delay_is_the_quantile_of_what_was_seen() -> None:
    latencies, random = Latencies(), Random(3)
    for _ in range(5000):
        latencies.add(random.uniform(0, 100))
    delay = HedgeDelay(HedgeSpec(), 0.0)
    delay.refresh(latencies.counts, 1.0)
    assert delay.ns == pytest.approx(95 * MS, rel=0.05)


def test_nothing_is_hedged_before_enough_is_known() -> None:
    latencies, delay = Latencies().add(5, 99), HedgeDelay(HedgeSpec(), 0.0)
    delay.refresh(latencies.counts, 1.0)
    assert delay.ns is None
    delay.refresh(latencies.add(5, 10).counts, 1.0)
    assert delay.ns


def test_delay_follows_when_calls_become_slower_and_faster() -> None:
    latencies, delay, seen = Latencies(), HedgeDelay(HedgeSpec(), 0.0), []
    for second in range(1, 121):
        latencies.add(40 if 30 < second <= 60 else 4, 500)
        delay.refresh(latencies.counts, float(second))
        seen.append((delay.ns or 0) / MS)
    assert seen[29] == pytest.approx(4, rel=0.2)
    assert seen[45] == pytest.approx(40, rel=0.2)
    assert seen[119] == pytest.approx(4, rel=0.2)


def test_when_many_calls_are_slow_the_delay_stays_with_the_fast_ones() -> None:
    latencies = Latencies().add(5, 900).add(50, 100)
    capped, uncapped = HedgeDelay(HedgeSpec(), 0.0), HedgeDelay(HedgeSpec(max_medians=None), 0.0)
    for delay in (capped, uncapped):
        delay.refresh(latencies.counts, 1.0)
    assert capped.ns == pytest.approx(15 * MS, rel=0.2)
    assert uncapped.ns == pytest.approx(50 * MS, rel=0.2)


def test_what_is_long_ago_is_forgotten() -> None:
    latencies, delay = Latencies().add(5, 1000), HedgeDelay(HedgeSpec(), 0.0)
    delay.refresh(latencies.counts, 1.0)
    assert delay.ns
    delay.refresh(latencies.counts, 100.0)
    assert delay.ns is None


def test_fixed_delay_learns_nothing() -> None:
    delay = HedgeDelay(HedgeSpec(after_s=0.05), 0.0)
    delay.refresh(Latencies().add(5, 1000).counts, 1.0)
    assert delay.ns == 50 * MS


def test_histogram_that_counts_from_zero_again_does_no_harm() -> None:
    latencies, delay = Latencies().add(5, 1000), HedgeDelay(HedgeSpec(), 0.0)
    delay.refresh(latencies.counts, 1.0)
    delay.refresh(Latencies().counts, 2.0)
    assert delay.ns == pytest.approx(5 * MS, rel=0.2)
