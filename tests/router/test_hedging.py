"""A second replica is asked beside a slow one; the first answer counts, and the other call is withdrawn."""

import pytest

from nstarx.spec.retry import HedgeSpec, RetrySpec
from router.deadlines import expire_overdue
from router.exchange import Exchange
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.replicas import EVEN, admin, ask, configure, cut, lane, requests, route, serve, sweep, total
from tests.router.wire import FLAKY, Wire, codes, flaky, in_flight, in_loop, post

SOON = HedgeSpec(after_s=0.01, budget_percent=100.0)
REF = "flaky@1.0.0"


def at_rest(plane: DataPlaneInProcess, gateway: Gateway) -> None:
    """Nothing is left in flight, counted or sent."""
    plane.until(lambda: in_flight(gateway) == 0 and not any(lane.waiting for lane in gateway.all_lanes()))


def test_second_replica_answers_for_a_slow_one_whose_call_is_withdrawn(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON, balancing=EVEN), replicas=2)
    slow = plane.replicas[0]
    with Wire(gateway) as wire:
        assert ask(wire, 10) == {200: 10}
        before = total(gateway, "hedges"), total(gateway, "hedges_won")
        configure(plane, slow, hang=True)
        try:
            answers = [wire.send(post(FLAKY, flaky(2.0))).answer() for _ in range(10)]
        finally:
            configure(plane, slow)
    assert [answer.json["outputs"][0]["data"] for answer in answers] == [[4.0]] * 10
    hedged = [answer for answer in answers if answer.headers.get("x-nstarx-hedged") == "true"]
    assert 1 <= len(hedged) < 10
    made, won = total(gateway, "hedges") - before[0], total(gateway, "hedges_won") - before[1]
    assert (made, won) == (len(hedged), len(hedged))
    at_rest(plane, gateway)
    counters = slow.batcher.counters
    plane.until(lambda: counters.cancelled + counters.expired >= 1)
    assert codes(gateway, REF) == {200: 20}
    metrics = admin(gateway, "/metrics").text
    assert f'nstarx_hedges_total{{gateway="{gateway.id}",role="primary",route="flaky",version="{REF}"}}' in metrics


def test_first_replica_may_still_be_first(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=HedgeSpec(after_s=0.1, budget_percent=100.0)), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, latency_ms=150)
    with Wire(gateway) as wire:
        answer = wire.send(post(FLAKY, flaky(1.0))).answer()
    assert (answer.status, answer.headers["x-nstarx-hedged"]) == (200, "true")
    assert (total(gateway, "hedges"), total(gateway, "hedges_won")) == (1, 0)
    at_rest(plane, gateway)
    assert codes(gateway, REF) == {200: 1}


def test_there_is_no_second_try_without_a_second_replica(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON), replicas=1)
    configure(plane, plane.replicas[0], latency_ms=40)
    with Wire(gateway) as wire:
        assert ask(wire, 3) == {200: 3}
    assert total(gateway, "hedges") == 0


def test_budget_bounds_further_tries_to_a_share_of_the_calls(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=HedgeSpec(after_s=0.001, budget_percent=10.0)), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, latency_ms=10)
    with Wire(gateway) as wire:
        assert ask(wire, 40) == {200: 40}
    assert (total(gateway, "hedges"), total(gateway, "hedges_refused")) == (4, 36)


def test_failed_try_does_not_end_a_call_that_has_another_under_way(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON, balancing=EVEN, retry=RetrySpec(num_retries=0)), replicas=2)
    first, second = plane.replicas
    configure(plane, first, latency_ms=40, error_rate=1.0)
    configure(plane, second, latency_ms=80)
    with Wire(gateway) as wire:
        assert ask(wire, 6) == {200: 6}
    at_rest(plane, gateway)
    assert codes(gateway, REF) == {200: 6, 500: 3}


def test_call_whose_every_try_fails_fails_once(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON, balancing=EVEN, retry=RetrySpec(num_retries=0)), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, latency_ms=50, error_rate=1.0)
    with Wire(gateway) as wire:
        assert ask(wire, 1) == {500: 1}
        for replica in plane.replicas:
            configure(plane, replica)
        assert ask(wire, 4) == {200: 4}
    at_rest(plane, gateway)


def test_replica_that_dies_beside_another_try_costs_nothing(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON, balancing=EVEN, retry=RetrySpec(num_retries=0)), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, hang=True)
    with Wire(gateway) as wire:
        wire.send(post(FLAKY, flaky(1.0)))
        plane.until(lambda: total(gateway, "hedges") == 1)
        cut(plane, plane.replicas[0])
        configure(plane, plane.replicas[1])
        assert wire.answer().status == 200
    configure(plane, plane.replicas[0])
    assert in_flight(gateway) == 0


def test_deadline_ends_every_try(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON, timeout_s=0.1), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, hang=True)
    with Wire(gateway) as wire:
        assert ask(wire, 2) == {504: 2}
        for replica in plane.replicas:
            configure(plane, replica)
        assert not any(lane.waiting for lane in gateway.all_lanes())
        assert ask(wire, 2) == {200: 2}
    assert codes(gateway, REF) == {504: 2, 200: 2}


def test_client_that_leaves_takes_every_try_along(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=SOON), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, hang=True)
    with Wire(gateway) as wire:
        wire.send(post(FLAKY, flaky(1.0)))
        plane.until(lambda: total(gateway, "hedges") == 1)
    at_rest(plane, gateway)
    for replica in plane.replicas:
        configure(plane, replica)
    assert codes(gateway, REF) == {499: 1}


def test_delay_is_learned_from_the_latencies_of_the_version(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(hedge=HedgeSpec(), balancing=EVEN), replicas=2)
    start = lane(gateway, plane.replicas[0]).started_at
    with Wire(gateway) as wire:
        ask(wire, 99)
        sweep(plane, gateway, start + 1.0)
        assert delays(gateway) == [None]
        ask(wire, 30)
        sweep(plane, gateway, start + 2.0)
        assert all(ns and 0.1e6 < ns < 100e6 for ns in delays(gateway))
        configure(plane, plane.replicas[0], hang=True)
        assert ask(wire, 4) == {200: 4}
        configure(plane, plane.replicas[0])
    assert total(gateway, "hedges_won") >= 1


def delays(gateway: Gateway) -> list[int | None]:
    """In nanoseconds, of what clients ask by the route."""
    return [hedging.ns for (_, _, role), hedging in gateway.compiler.restraints.hedgings.items() if role == "primary"]


def test_route_that_is_not_idempotent_can_not_hedge() -> None:
    with pytest.raises(ValueError, match="hedge: repeats requests"):
        route(hedge=SOON, idempotent=False)


# The time of one try


def test_try_that_takes_too_long_is_repeated_on_another_replica(plane: DataPlaneInProcess) -> None:
    retry = RetrySpec(per_try_timeout_s=0.05, retry_on=("per_try_timeout",))
    gateway = serve(plane, route(retry=retry, balancing=EVEN), replicas=2)
    configure(plane, plane.replicas[0], hang=True)
    with Wire(gateway) as wire:
        assert ask(wire, 6) == {200: 6}
    configure(plane, plane.replicas[0])
    assert total(gateway, "retries") == 3
    assert codes(gateway, REF) == {504: 3, 200: 6}
    at_rest(plane, gateway)
    assert requests(plane)[1] == 6


def test_last_try_that_takes_too_long_is_answered_with_its_time(plane: DataPlaneInProcess) -> None:
    retry = RetrySpec(per_try_timeout_s=0.05, retry_on=("per_try_timeout",), num_retries=1)
    gateway = serve(plane, route(retry=retry), replicas=2)
    for replica in plane.replicas:
        configure(plane, replica, hang=True)
    with Wire(gateway) as wire:
        answer = wire.send(post(FLAKY, flaky(1.0))).answer()
        assert (answer.status, "0.05 s" in answer.error) == (504, True)
        assert codes(gateway, REF) == {504: 2}
        for replica in plane.replicas:
            configure(plane, replica)
        assert ask(wire, 2) == {200: 2}
    at_rest(plane, gateway)


def test_try_has_no_more_time_than_its_request(plane: DataPlaneInProcess) -> None:
    retry = RetrySpec(per_try_timeout_s=20.0, retry_on=("per_try_timeout",))
    gateway = serve(plane, route(retry=retry), replicas=2)
    configure(plane, plane.replicas[0], hang=True)
    configure(plane, plane.replicas[1], hang=True)
    with Wire(gateway) as wire:
        wire.send(post(FLAKY, flaky(1.0), "X-Request-Timeout-Seconds: 10"))
        plane.until(lambda: in_flight(gateway) == 1)
        waiting = [call for lane in gateway.all_lanes() for call in lane.waiting.values()]
        [call] = [call for call in waiting if isinstance(call, Exchange)]
        assert call.due == call.deadline
        in_loop(plane, lambda: expire_overdue(gateway.all_lanes(), call.due))
        answer = wire.answer()
        assert (answer.status, "10 s" in answer.error) == (504, True)
    for replica in plane.replicas:
        configure(plane, replica)
