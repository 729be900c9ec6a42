"""Balancing, ejection, hedging and admission together, over simulated seconds with fixed seeds."""

from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.admission import AdmissionSpec, MinRttSpec
from nstarx.spec.balancing import BalancingSpec
from nstarx.spec.retry import HedgeSpec
from router.admission import ADMIT, Admission, Reject
from router.balancing import Balancer
from router.budget import CallBudget
from router.ejection import Ejection, OutlierDetection, Return
from router.hedge_delay import HedgeDelay
from tests.router.simulated import Call, Clock, Replica, S

SERVERS, MEAN_S = 8, 0.005


def percentile(latencies: list[int], percent: float) -> float:
    """In milliseconds."""
    return sorted(latencies)[int(len(latencies) * percent / 100)] / 1e6


class Version:
    """Three replicas of one version, and one gateway's dealings with them."""

    def __init__(self, balancing: BalancingSpec, hedge: HedgeSpec | None = None, seed: int = 1) -> None:
        self.clock, self.random = Clock(), Random(seed)
        self.slowed = 1.0
        self.replicas = [Replica(self.clock, f"r{n}", SERVERS, partial(self._service_s, n)) for n in range(3)]
        self.balancer = Balancer[Replica](balancing, self.random.random)
        self.detection = OutlierDetection(balancing.ejection, 0.0)
        self.healths = {replica: self.detection.join(replica.name, 0.0) for replica in self.replicas}
        for replica in self.replicas:
            self.balancer.join(replica, 0.0)
        self.hedge = HedgeDelay(hedge, 0.0) if hedge else None
        self.budget = CallBudget(hedge.budget_percent if hedge else 0.0, burst=50)
        self.histogram = [0] * BUCKETS
        self.calls = 0
        self.latencies: list[int] = []
        self.events: list[tuple[float, Ejection | Return]] = []
        self.clock.every(1.0, self._sweep)

    def _service_s(self, place: int) -> float:
        return MEAN_S * self.random.lognormvariate(0, 0.3) * (self.slowed if place == 0 else 1)

    def load(self, rate: float) -> None:
        self.clock.arrivals(lambda: rate, self.random, self._arrive)

    def share_of_the_first(self, until_s: float) -> float:
        """Part of the calls that the first replica gets from now on."""
        calls, runs = self.calls, self.replicas[0].runs
        self.clock.run(until_s)
        return (self.replicas[0].runs - runs) / (self.calls - calls)

    def _arrive(self) -> None:
        self.calls += 1
        began = self.clock.now
        sent: dict[Replica, Call] = {}

        def send(replica: Replica | None) -> None:
            if replica:
                sent[replica] = replica.send(partial(done, replica))

        def done(winner: Replica, ns: int) -> None:
            self.healths[winner].succeeded(ns)
            for loser in sent.keys() - {winner}:
                loser.cancel(sent[loser])
                self.healths[loser].succeeded(self.clock.now - sent[loser].started)
            self._answered(self.clock.now - began)
            sent.clear()

        def late() -> None:
            if sent and self.budget.take(self.calls):
                send(self.balancer.pick_other([*sent]))

        send(self.balancer.pick())
        if self.hedge and self.hedge.ns:
            self.clock.after(self.hedge.ns / S, late)

    def _answered(self, ns: int) -> None:
        self.histogram[bucket_of(ns)] += 1
        self.latencies.append(ns)
        assert self.budget.taken * 20 <= self.calls

    def _sweep(self) -> None:
        now = self.clock.now / S
        for decision in self.detection.sweep(now):
            self.detection.carry_out(decision, now)
            self.events.append((now, decision))
            if isinstance(decision, Return):
                self.balancer.reinstate(decision.replica, now)
            elif decision.enforced:
                self.balancer.eject(decision.replica, now)
        self.balancer.slow_down(self.detection.slowness(), now)
        if self.balancer.warming:
            self.balancer.refresh(now)
        if self.hedge:
            self.hedge.refresh(self.histogram, now)


PLAIN = BalancingSpec(ejection=None, latency_bias=0.0)


def test_slow_replica_of_three_is_ejected_and_comes_back_when_it_is_fast_again() -> None:
    version = Version(BalancingSpec(slow_start_s=10.0))
    version.load(1000)
    assert version.share_of_the_first(10) == pytest.approx(1 / 3, abs=0.01)
    assert not version.events
    version.slowed = 10.0
    version.clock.run(20)
    [(at, ejection)] = version.events
    assert isinstance(ejection, Ejection)
    assert (ejection.replica, ejection.rule) == ("r0", "latency_outlier")
    assert 12 <= at <= 17
    assert version.share_of_the_first(40) == 0
    version.slowed = 1.0
    version.clock.run(at + 30.5)
    assert isinstance(version.events[-1][1], Return)
    assert version.share_of_the_first(at + 32) < 0.1
    version.clock.run(at + 41)
    assert version.share_of_the_first(at + 50) == pytest.approx(1 / 3, abs=0.02)
    assert len(version.events) == 2


def test_replica_that_stays_slow_is_out_twice_as_long_the_second_time() -> None:
    version = Version(BalancingSpec(slow_start_s=10.0))
    version.load(500)
    version.slowed = 10.0
    version.clock.run(100)
    ejections = [decision for _, decision in version.events if isinstance(decision, Ejection)]
    assert [ejection.seconds for ejection in ejections] == [30, 60]


def test_three_replicas_that_are_alike_are_left_alone() -> None:
    version = Version(BalancingSpec())
    version.load(1000)
    version.clock.run(40)
    assert not version.events
    assert version.share_of_the_first(45) == pytest.approx(1 / 3, abs=0.01)


def test_slow_replica_gets_little_before_it_is_ejected_and_all_its_share_when_it_is_fast_again() -> None:
    version = Version(BalancingSpec(ejection=None))
    version.load(1000)
    version.slowed = 10.0
    version.clock.run(5)
    assert version.share_of_the_first(10) < 0.02
    version.slowed = 1.0
    version.clock.run(20)
    assert version.share_of_the_first(25) == pytest.approx(1 / 3, abs=0.01)


def tail(balancing: BalancingSpec, hedge: HedgeSpec | None, rate: float) -> float:
    """The p99 in milliseconds with one of three replicas ten times as slow."""
    version = Version(balancing, hedge)
    version.slowed = 10.0
    version.load(rate)
    version.clock.run(4)
    version.latencies.clear()
    version.clock.run(14)
    return percentile(version.latencies, 99)


@pytest.mark.parametrize("rate", [300, 2000])
def test_hedging_and_balancing_by_latency_cut_the_tail_of_a_slow_replica_to_less_than_half(rate: float) -> None:
    before = tail(PLAIN, None, rate)
    assert before > 60
    assert tail(BalancingSpec(ejection=None), HedgeSpec(), rate) < before / 2


@pytest.mark.parametrize("delay_s", [0.001, 0.005, None])
def test_hedges_never_exceed_five_per_cent_of_the_calls(delay_s: float | None) -> None:
    version = Version(PLAIN, HedgeSpec(after_s=delay_s))
    version.slowed = 10.0
    version.load(1000)
    version.clock.run(10)
    assert 0.04 < version.budget.taken / version.calls <= 0.05
    assert sum(replica.runs for replica in version.replicas) <= version.calls + version.budget.taken


# Admission: a queue with eight servers and exponential times, which do 800 requests a second


class Admitted:
    """One version behind admission control."""

    def __init__(self, seed: int, min_rtt: MinRttSpec | None = None) -> None:
        self.clock, self.random = Clock(), Random(seed)
        self.slowed = 1.0
        self.replica = Replica(self.clock, "r", SERVERS, lambda: self.random.expovariate(100) * self.slowed)
        spec = AdmissionSpec(min_rtt=min_rtt or MinRttSpec())
        self.admission = Admission[int](spec, 0, self.random.random)
        self.limits: list[int] = []
        self.latencies: list[int] = []
        self.rejected = 0
        self.arrived = 0
        self.clock.every(0.02, self._update)

    def load(self, rate: Callable[[], float]) -> None:
        self.clock.arrivals(rate, self.random, self._arrive)

    def run(self, until_s: float) -> float:
        """Answers a second from now until then."""
        self.limits, self.latencies, self.rejected, self.arrived = [], [], 0, 0
        began = self.clock.now
        self.clock.run(until_s)
        return len(self.latencies) / (until_s - began / S)

    def _arrive(self) -> None:
        self.arrived += 1
        decision = self.admission.arrive(self.clock.now, 0, self.clock.now + S, self.clock.now)
        if decision is ADMIT:
            self._begin()
        self.rejected += isinstance(decision, Reject)

    def _begin(self) -> None:
        self.replica.send(partial(self._done, self.clock.now))

    def _done(self, started: int, ns: int) -> None:
        self.latencies.append(ns)
        self.admission.limit.leave(started, started + ns)
        self._release()

    def _release(self) -> None:
        if self.admission.queue.size:
            for _ in self.admission.release(self.clock.now).admitted:
                self._begin()

    def _update(self) -> None:
        self.admission.limit.update(self.clock.now)
        self.limits.append(self.admission.limit.limit)
        self._release()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_limit_settles_where_more_requests_would_only_wait(seed: int) -> None:
    version = Admitted(seed)
    version.load(lambda: 2000)
    version.run(3)
    assert version.run(15) > 0.95 * 800
    assert SERVERS <= sum(version.limits) / len(version.limits) <= 2 * SERVERS
    assert percentile(version.latencies, 50) < 2 * 6.9  # the median of a version at rest
    assert version.rejected > 0.5 * version.arrived


@pytest.mark.parametrize("seed", [1, 2])
def test_version_with_room_rejects_nobody(seed: int) -> None:
    version = Admitted(seed)
    version.load(lambda: 500)
    version.run(1)
    assert version.run(15) == pytest.approx(500, rel=0.05)
    assert version.rejected == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_limit_recovers_after_an_overload_and_after_a_slow_spell(seed: int) -> None:
    version = Admitted(seed, MinRttSpec(interval_s=5.0))
    rate = 500.0
    version.load(lambda: rate)
    version.run(5)
    rate = 5000.0
    assert version.run(10) > 0.9 * 800
    rate = 500.0
    version.run(11)
    assert version.run(15) == pytest.approx(500, rel=0.05)
    assert version.rejected == 0
    version.slowed = 10.0
    assert version.run(20) < 100
    version.slowed = 1.0
    version.run(22)
    assert version.run(32) == pytest.approx(500, rel=0.05)
    assert version.rejected == 0
    assert max(version.limits[-100:]) < 4 * SERVERS
