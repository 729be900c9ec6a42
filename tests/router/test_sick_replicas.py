"""A replica that fails or is slow gets no more requests, and all can see it; the version stays."""

from typing import Any

import pytest

from nstarx.spec.balancing import BalancingSpec, EjectionSpec, LatencyOutlierSpec
from nstarx.spec.retry import RetrySpec
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.replicas import REF, RUN_ALONE, admin, ask, configure, events, lane, requests, serve, sweep
from tests.router.replicas import route as any_route
from tests.router.wire import FLAKY, Wire, flaky, in_loop, post


def route(balancing: BalancingSpec | None = None, **parts: Any) -> RouteSpec:
    return any_route(balancing=balancing or BalancingSpec(ejection=RUN_ALONE), **parts)


def out(gateway: Gateway) -> list[str]:
    return [replica for pool in gateway.compiler.pools() for replica in pool.out]


def test_replica_that_fails_is_taken_out_shown_and_comes_back(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route())
    sick = plane.replicas[0]
    configure(plane, sick, error_rate=1.0)
    with Wire(gateway) as wire:
        assert ask(wire, 60) == {500: 5, 200: 55}
        assert out(gateway) == [sick.id]
        before = requests(plane)
        assert ask(wire, 20) == {200: 20}
        assert requests(plane)[0] == before[0]
    plane.until(lambda: len(events(plane, "ReplicaEjected")) == 1)
    [event] = events(plane, "ReplicaEjected")
    assert (event.version, event.gateway, event.details["rule"]) == (REF, gateway.id, "consecutive_failures")
    assert event.sentence == f"replica {sick.id} ejected for 30 s: 5 answers in a row failed"
    [shown] = admin(gateway, "/status").json()["ejected"]
    assert (shown["gateway"], shown["ref"], shown["replica"]) == (gateway.id, REF, sick.id)
    metrics = admin(gateway, "/metrics").text
    labels = f'gateway="{gateway.id}",'
    assert f'nstarx_replica_ejections_total{{{labels}rule="consecutive_failures",version="{REF}"}} 1.0' in metrics
    assert f'nstarx_replicas_ejected{{{labels}version="{REF}"}} 1.0' in metrics
    configure(plane, sick)
    sweep(plane, gateway, lane(gateway, sick).started_at + 1000.0)
    assert out(gateway) == []
    plane.until(lambda: len(events(plane, "ReplicaReturned")) == 1)
    assert admin(gateway, "/status").json()["ejected"] == []
    with Wire(gateway) as wire:
        before = requests(plane)
        assert ask(wire, 30) == {200: 30}
        assert requests(plane)[0] > before[0]


def test_policy_that_does_not_enforce_only_tells(plane: DataPlaneInProcess) -> None:
    ejection = RUN_ALONE.model_copy(update={"enforce": False})
    gateway = serve(plane, route(BalancingSpec(ejection=ejection)), replicas=2)
    configure(plane, plane.replicas[0], error_rate=1.0)
    with Wire(gateway) as wire:
        assert ask(wire, 40)[500] > 10
    assert out(gateway) == []
    plane.until(lambda: bool(events(plane, "ReplicaEjected")))
    assert "would be ejected" in events(plane, "ReplicaEjected")[0].sentence


def test_version_whose_every_replica_fails_is_demoted_and_keeps_its_replicas(plane: DataPlaneInProcess) -> None:
    for _ in range(2):
        plane.replica(REF)
    plane.replica("iris@1.0.0")
    split = SplitSpec(weighted={REF: 1, "iris@1.0.0": 1})
    spec = RouteSpec(model="flaky", split=split, balancing=BalancingSpec(ejection=RUN_ALONE))
    gateway = plane.gateway((spec,))
    for replica in plane.replicas[:2]:
        configure(plane, replica, error_rate=1.0)
    with Wire(gateway) as wire:
        for _ in range(60):
            wire.send(post(FLAKY, flaky(1.0))).answer()
    plane.until(lambda: bool(events(plane, "Demoted")))
    assert out(gateway) == []
    assert not events(plane, "ReplicaEjected")


def test_overload_is_held_against_nobody(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(), replicas=2)
    full = plane.replicas[0]

    def fill() -> None:
        limits = full.batcher.spec.limits.model_copy(update={"max_queue_size": 0})
        full.batcher.spec = full.batcher.spec.model_copy(update={"limits": limits})

    in_loop(plane, fill)
    with Wire(gateway) as wire:
        assert ask(wire, 40) == {200: 40}
    assert full.batcher.counters.rejected > 10
    assert out(gateway) == []


def test_replica_that_hangs_is_taken_out_when_the_route_gave_it_its_time(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(timeout_s=0.05), replicas=2)
    configure(plane, plane.replicas[0], hang=True)
    try:
        with Wire(gateway) as wire:
            seen = ask(wire, 30)
        assert seen[504] >= 5
        assert out(gateway) == [plane.replicas[0].id]
    finally:
        configure(plane, plane.replicas[0])


def test_deadlines_that_nobody_could_meet_have_nobody_taken_out(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, latency_ms=30)
    with Wire(gateway) as wire:
        hurried = post(FLAKY, flaky(1.0), "X-Request-Timeout-Seconds: 0.01")
        assert {wire.send(hurried).answer().status for _ in range(14)} == {504}
    assert out(gateway) == []


def test_slow_replica_gets_little_and_is_taken_out_when_it_stays_slow(plane: DataPlaneInProcess) -> None:
    outlier = LatencyOutlierSpec(min_requests=5)
    ejection = EjectionSpec(consecutive_failures=0, success_rate=None, latency_outlier=outlier)
    gateway = serve(plane, route(BalancingSpec(ejection=ejection)))
    configure(plane, plane.replicas[0], latency_ms=20)
    start = lane(gateway, plane.replicas[0]).started_at
    with Wire(gateway) as wire:
        ask(wire, 90)
        before = requests(plane)
        sweep(plane, gateway, start + 1.0)
        ask(wire, 90)
        after = requests(plane)
        share = (after[0] - before[0]) / (sum(after) - sum(before))
        assert 0 < share < 0.1
        for second in range(2, 7):
            sweep(plane, gateway, start + second)
            ask(wire, 60)
        assert out(gateway) == [plane.replicas[0].id]
    plane.until(lambda: bool(events(plane, "ReplicaEjected")))
    assert events(plane, "ReplicaEjected")[0].details["rule"] == "latency_outlier"


def test_routes_with_different_policies_have_each_their_own_opinion_of_a_replica(plane: DataPlaneInProcess) -> None:
    patient = route(BalancingSpec(ejection=None), path_prefix="/patient")
    gateway = serve(plane, route(), patient, replicas=2)
    sick = plane.replicas[0]
    configure(plane, sick, error_rate=1.0)
    with Wire(gateway) as wire:
        assert ask(wire, 40) == {500: 5, 200: 35}
        assert ask(wire, 40, f"/patient{FLAKY}")[500] == 20
        assert ask(wire, 40) == {200: 40}
        in_loop(plane, lambda: gateway.apply(gateway.table.snapshot.model_copy(update={"routes": (patient,)})))
        assert len(gateway.compiler.backend(REF).pools) == 2


def test_requests_of_one_key_go_to_one_replica(plane: DataPlaneInProcess) -> None:
    policy = BalancingSpec.model_validate({"policy": "ring_hash", "key": {"header": "x-user"}})
    gateway = serve(plane, route(policy))
    with Wire(gateway) as wire:
        for user in range(12):
            before = requests(plane)
            for _ in range(5):
                assert wire.send(post(FLAKY, flaky(1.0), f"X-User: u{user}")).answer().status == 200
            gained = sorted(after - old for after, old in zip(requests(plane), before, strict=True))
            assert gained == [0, 0, 5]
    assert all(requests(plane))


def test_ring_hash_goes_by_the_key_that_the_split_is_sticky_by(plane: DataPlaneInProcess) -> None:
    split = SplitSpec.model_validate({"weighted": {REF: 1}, "sticky": {"cookie": {"name": "who"}}})
    gateway = serve(plane, route(BalancingSpec(policy="ring_hash"), split=split))
    with Wire(gateway) as wire:
        issued = wire.send(post(FLAKY, flaky(1.0))).answer().headers["set-cookie"].partition(";")[0]
        for _ in range(10):
            assert wire.send(post(FLAKY, flaky(1.0), f"Cookie: {issued}")).answer().status == 200
    assert sorted(requests(plane)) == [0, 0, 11]


def test_ring_hash_without_any_key_is_refused() -> None:
    with pytest.raises(ValueError, match="ring_hash needs a key"):
        route(BalancingSpec(policy="ring_hash"))


def test_new_replica_starts_slowly_where_the_route_says_so(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(BalancingSpec(slow_start_s=1000.0, ejection=None, latency_bias=0.0)), replicas=2)
    for old in gateway.lanes():
        old.started_at -= 2000.0
    new = plane.replica(REF)
    plane.settle(gateway)
    with Wire(gateway) as wire:
        ask(wire, 100)
        assert requests(plane)[2] <= 8
        sweep(plane, gateway, lane(gateway, new).started_at + 1000.0)
        before = requests(plane)[2]
        ask(wire, 99)
        assert 30 <= requests(plane)[2] - before <= 36


def test_failed_answer_is_repeated_on_another_replica_or_on_the_only_one(plane: DataPlaneInProcess) -> None:
    retry = RetrySpec(retry_on=("server_error",), num_retries=1)
    gateway = serve(plane, route(retry=retry, balancing=BalancingSpec(ejection=None)), replicas=1)
    configure(plane, plane.replicas[0], error_rate=0.5)
    with Wire(gateway) as wire:
        assert ask(wire, 20) == {200: 20}
        plane.replica(REF)
        plane.settle(gateway)
        configure(plane, plane.replicas[0], error_rate=1.0)
        assert ask(wire, 20) == {200: 20}


def test_route_that_repeats_nothing_gives_failures_on(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(retry=RetrySpec(retry_on=())), replicas=2)
    full = plane.replicas[0]
    limits = full.batcher.spec.limits.model_copy(update={"max_queue_size": 0})
    full.batcher.spec = full.batcher.spec.model_copy(update={"limits": limits})
    with Wire(gateway) as wire:
        assert ask(wire, 10)[503] == 5
