"""A version's replicas as those routes see them that balance alike: who takes requests, who is ejected, and why.

Policies belong to routes, and a version may answer several. Each policy has a pool of its own beside the others, with
its own opinion of every replica: routes with the same policy share what they have seen, and a route with another is
neither helped nor hurt by it.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nstarx.spec.balancing import BalancingSpec
from router.balancing import Balancer
from router.ejection import Ejection, OutlierDetection, Return
from router.health import Failure, Health

if TYPE_CHECKING:
    from router.lanes import Lane

LATE = 10
"""Times the usual latency after which a call that was given up is held against the replica."""

OnDecision = Callable[[str, Ejection | Return], None]
"""Called with the version, and what was decided about one of its replicas."""


class Pool:
    """Balancer and outlier detection of one version, by one policy. Times are of `time.monotonic`, in seconds."""

    __slots__ = ("_detection", "_known", "_on_decision", "balancer", "healths", "out", "ref")

    def __init__(
        self, ref: str, spec: BalancingSpec, lanes: Iterable["Lane"], on_decision: OnDecision, now: float
    ) -> None:
        self.ref = ref
        self.balancer = Balancer["Lane"](spec)
        self.healths: dict[Lane, Health] = {}
        """What is told of every good answer; empty where there is one replica alone, and nothing to choose."""
        self._known: dict[Lane, Health] = {}
        self.out: dict[str, Ejection] = {}
        """Replicas that are ejected."""
        self._detection = OutlierDetection(spec.ejection, now)
        self._on_decision = on_decision
        for lane in lanes:
            self.join(lane, now)

    @property
    def spec(self) -> BalancingSpec:
        """The policy."""
        return self.balancer.spec

    def join(self, lane: "Lane", now: float) -> None:
        """A replica can be reached."""
        self._known[lane] = self._detection.join(lane.name, now)
        self.balancer.join(lane, now)
        self._watch()

    def leave(self, lane: "Lane", now: float) -> None:
        """A replica takes no more requests."""
        if self._known.pop(lane, None):
            self._detection.leave(lane.name)
            self.balancer.leave(lane, now)
            self.out.pop(lane.name, None)
            self._watch()

    def _watch(self) -> None:
        self.healths.clear()
        if len(self._known) > 1:
            self.healths.update(self._known)

    def failed(self, lane: "Lane", kind: Failure, now: float) -> None:
        """A replica has failed a call."""
        health = self.healths.get(lane)
        decision = health and self._detection.failed(health, kind, now)
        if decision:
            self._carry_out(decision, now)

    def given_up(self, lane: "Lane", ns: int, patience_ns: int, now: float) -> None:
        """A call was withdrawn from a replica after so long.

        That is a failure if the replica had as much time as the route gives, or many times what it usually takes.
        Clients may set any deadline, and one too short for anybody must not have replicas ejected.
        """
        health = self.healths.get(lane)
        if health is None:
            return
        if ns >= patience_ns or ns >= LATE * health.median_ns > 0:
            self.failed(lane, Failure.GATEWAY, now)
        else:
            health.outlasted(ns)

    def sweep(self, now: float) -> None:
        """What is due once a second: returns, outliers, shares of those who warm up or are slow."""
        for decision in self._detection.sweep(now):
            self._carry_out(decision, now)
        self.balancer.slow_down(self._detection.slowness(), now)
        if self.balancer.warming:
            self.balancer.refresh(now)

    def _carry_out(self, decision: Ejection | Return, now: float) -> None:
        self._detection.carry_out(decision, now)
        if isinstance(decision, Return):
            self.out.pop(decision.replica, None)
            self.balancer.reinstate(decision.replica, now)
        elif decision.enforced:
            self.out[decision.replica] = decision
            self.balancer.eject(decision.replica, now)
        self._on_decision(self.ref, decision)
