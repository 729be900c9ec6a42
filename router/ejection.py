"""Which replicas of a version get no requests for a while, as Envoy's outlier detection decides it.

Deciding and doing are apart: `failed` and `sweep` say what should happen, `carry_out` does it. Times are seconds on one
monotonic clock that the caller reads. A gateway ejects by what it has seen itself; others come to it by their own
failures.
"""

from dataclasses import dataclass
from typing import NamedTuple

from nstarx.spec.balancing import EjectionSpec
from router.health import Failure, Health
from router.outliers import Rule, Suspicion, run_of_failures, slow, slowness, unsuccessful

NOBODY = EjectionSpec(consecutive_failures=0, success_rate=None, latency_outlier=None)
"""What no replica can break."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """A replica that is taken out, or would be."""

    replica: str
    rule: Rule
    measured: float
    """What the rule measures: failures in a row, a success rate, or seconds."""
    threshold: float
    calls: int
    """Requests that the replica has had since it joined or returned."""
    seconds: float
    """How long it stays out."""
    until: float
    times: int
    """Ejections not yet forgiven, this one included."""
    enforced: bool
    sentence: str


class Return(NamedTuple):
    """A replica that takes requests again."""

    replica: str
    times: int
    sentence: str


class OutlierDetection:
    """Decides for the replicas of one version."""

    __slots__ = ("_ejected", "_healths", "_window_started", "overflow", "spec")

    def __init__(self, spec: EjectionSpec | None, now: float) -> None:
        self.spec = spec or NOBODY
        self.overflow = 0
        """Ejections left out because too many are out already."""
        self._healths: dict[str, Health] = {}
        self._ejected = 0
        self._window_started = now

    @property
    def ejected(self) -> int:
        """Replicas that are out."""
        return self._ejected

    def join(self, replica: str, now: float) -> Health:
        """A replica has come. Its record, to be told of every answer."""
        self._healths[replica] = health = Health(replica, now)
        return health

    def leave(self, replica: str) -> None:
        """A replica has gone."""
        health = self._healths.pop(replica, None)
        self._ejected -= health is not None and health.ejected_until > 0

    def failed(self, health: Health, kind: Failure, now: float) -> Ejection | None:
        """Count a failure; the ejection that it is the last straw for.

        Answers that were on their way when the replica was ejected count, and decide nothing. While the latest answers
        of all others failed too, it is the version that is sick, and not the replica: whom a version's failures concern
        judges the version.
        """
        health.failed(kind)
        suspicion = None if _is_out(health, now) else run_of_failures(health, self.spec)
        if suspicion is None or not self._alone(health):
            return None
        if not self._room(self._ejected):
            self.overflow += self.spec.enforce
            return None
        return self._ejection(suspicion, now)

    def sweep(self, now: float) -> list[Ejection | Return]:
        """What is due, once a second: returns, then ejections of outliers, the worst first, as far as may be."""
        returns = [health for health in self._healths.values() if 0 < health.ejected_until <= now]
        suspicions = {suspicion.health: suspicion for suspicion in self._outliers(now)}
        worst_first = sorted(
            suspicions.values(), key=lambda s: abs(s.measured - s.threshold) / s.threshold, reverse=True
        )
        ejections: list[Ejection] = []
        for suspicion in worst_first:
            if self._room(self._ejected - len(returns) + len(ejections)):
                ejections.append(self._ejection(suspicion, now))
            else:
                self.overflow += self.spec.enforce
        return [*map(self._return, returns), *ejections]

    def slowness(self) -> dict[str, float]:
        """Replicas that are notably slower than the others, and how many times; for the balancer, once a second."""
        return slowness([health for health in self._healths.values() if not health.ejected_until])

    def carry_out(self, decision: Ejection | Return, now: float) -> None:
        """Do what was decided. The caller's part is to choose among the rest, and to tell."""
        health = self._healths.get(decision.replica)
        if health is None:
            return
        if isinstance(decision, Return):
            self._ejected -= 1
            health.begin(now)
            health.next_window()
        elif decision.enforced:
            self._ejected += not health.ejected_until
            health.ejected_until, health.ejections = decision.until, decision.times
        else:
            health.reported_until = decision.until

    def _alone(self, health: Health) -> bool:
        """Whether another replica that takes requests does better."""
        others = [h for h in self._healths.values() if h is not health and not h.ejected_until]
        return not others or not all(other.consecutive for other in others)

    def _outliers(self, now: float) -> list[Suspicion]:
        live = [health for health in self._healths.values() if not _is_out(health, now)]
        return [*self._persistently_slow(live), *self._unsuccessful(live, now)]

    def _persistently_slow(self, live: list[Health]) -> list[Suspicion]:
        """Slow in so many sweeps in a row; a sweep without a new answer says nothing."""
        spec = self.spec.latency_outlier
        if spec is None:
            return []
        suspicions = {suspicion.health: suspicion for suspicion in slow(live, spec)}
        for health in live:
            if health.calls > health.seen:
                health.seen = health.calls
                health.slow_sweeps = health.slow_sweeps + 1 if health in suspicions else 0
        return [s for health, s in suspicions.items() if health.slow_sweeps >= spec.consecutive_sweeps]

    def _unsuccessful(self, live: list[Health], now: float) -> list[Suspicion]:
        """At the end of each interval, which then begins anew."""
        spec = self.spec.success_rate
        if now - self._window_started < self.spec.interval_s:
            return []
        suspicions = unsuccessful(live, spec) if spec else []
        for health in live:
            health.ejections -= health.ejections > 0 and health.since <= self._window_started
        for health in self._healths.values():
            health.next_window()
        self._window_started = now
        return suspicions

    def _room(self, ejected: int) -> bool:
        """One more may go: never the last, the first if the specification says so, else within the share."""
        spec, replicas = self.spec, len(self._healths)
        if ejected + 1 >= replicas:
            return False
        if ejected == 0 and spec.always_eject_one_host:
            return True
        return 100 * (ejected + 1) <= spec.max_ejection_percent * replicas

    def _ejection(self, suspicion: Suspicion, now: float) -> Ejection:
        spec, health = self.spec, suspicion.health
        times = health.ejections + 1
        seconds = min(spec.base_ejection_time_s * times, max(spec.max_ejection_time_s, spec.base_ejection_time_s))
        act = f"ejected for {seconds:g} s" if spec.enforce else f"would be ejected for {seconds:g} s"
        return Ejection(
            health.replica, suspicion.rule, suspicion.measured, suspicion.threshold, health.calls - health.since_calls,
            seconds, now + seconds, times, spec.enforce, f"replica {health.replica} {act}: {suspicion.because}",
        )  # fmt: skip

    def _return(self, health: Health) -> Return:
        times = "once" if health.ejections == 1 else f"{health.ejections} times"
        sentence = f"replica {health.replica} takes requests again; it was ejected {times} lately"
        return Return(health.replica, health.ejections, sentence)


def _is_out(health: Health, now: float) -> bool:
    """It takes no requests, or would take none."""
    return health.ejected_until > 0 or now < health.reported_until
