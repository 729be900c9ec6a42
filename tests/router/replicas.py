"""Replicas of `flaky` behind a gateway, in the hands of tests of limits."""

from collections import Counter
from typing import Any

import httpx

from nstarx.spec.balancing import BalancingSpec, EjectionSpec
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from router.gateway import Gateway
from router.lanes import Lane
from serving.pace import Pace
from serving.replica import Replica
from tests.in_process import DataPlaneInProcess
from tests.router.wire import FLAKY, Wire, flaky, in_loop, post

REF = "flaky@1.0.0"
RUN_ALONE = EjectionSpec(consecutive_failures=5, success_rate=None, latency_outlier=None)
EVEN = BalancingSpec(ejection=None, latency_bias=0.0)
"""Nobody is spared."""


def route(**parts: Any) -> RouteSpec:
    """A route to `flaky` that nobody judges."""
    document = {"model": "flaky", "split": SplitSpec(weighted={REF: 1}), "demotion": None}
    return RouteSpec.model_validate({**document, **parts})


def serve(plane: DataPlaneInProcess, *routes: RouteSpec, replicas: int = 3) -> Gateway:
    for _ in range(replicas):
        plane.replica(REF)
    return plane.gateway(routes)


def configure(plane: DataPlaneInProcess, replica: Replica, **settings: Any) -> None:
    """Change what a replica does; its runs are in a thread until it is known to be fast again."""

    def change() -> None:
        replica.batcher.pace = Pace()
        replica.runtime.reconfigure(settings)

    in_loop(plane, change)


def cut(plane: DataPlaneInProcess, replica: Replica) -> None:
    """Its connections break, and it lives on."""

    def end() -> None:
        for lane in list(replica.lanes.lanes):
            lane.abort()

    in_loop(plane, end)


def ask(wire: Wire, times: int, path: str = FLAKY) -> Counter[int]:
    """Ask one after the other; how many were answered with which status."""
    return Counter(wire.send(post(path, flaky(1.0))).answer().status for _ in range(times))


def requests(plane: DataPlaneInProcess) -> list[int]:
    """How many each replica has run."""
    counters = [replica.batcher.counters for replica in plane.replicas]
    return [count.succeeded + count.failed for count in counters]


def lane(gateway: Gateway, replica: Replica) -> Lane:
    [found] = [lane for lane in gateway.lanes() if lane.name == replica.id]
    return found


def sweep(plane: DataPlaneInProcess, gateway: Gateway, now: float) -> None:
    """What a gateway does once a second."""

    def act() -> None:
        for pool in gateway.compiler.pools():
            pool.sweep(now)
        gateway.compiler.restraints.learn(now)

    in_loop(plane, act)


def events(plane: DataPlaneInProcess, *kinds: str) -> list[Any]:
    return [event for event in plane.call(plane.coordinator.events(0)) if event.kind in kinds]


def admin(gateway: Gateway, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{gateway.spec.admin_port}{path}")


def total(gateway: Gateway, name: str) -> int:
    """A counter of tallies, over all of them."""
    return sum(getattr(tally, name) for tally in gateway.compiler.tallies.values())
