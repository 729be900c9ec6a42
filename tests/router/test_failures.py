"""Deadlines, full queues, dead replicas, drains and a coordinator that is away: clients notice little."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import httpx
import orjson
import pytest

from cluster.coordination import CoordinatorUnavailable
from cluster.coordinator import Coordinator
from nstarx.spec.retry import RetrySpec
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.split import SplitSpec
from router.deadlines import expire_overdue
from router.gateway import Gateway
from router.protocol import LINGER_S
from serving.replica import Replica
from tests.in_process import DataPlaneInProcess
from tests.router.wire import (
    FLAKY,
    IRIS,
    Wire,
    codes,
    connections,
    flaky,
    hanging,
    in_flight,
    in_loop,
    iris,
    later,
    post,
)

NEVER = 1 << 62
"""On the clock of deadlines, after any of them."""


def route(model: str, weighted: dict[str, float], **parts: Any) -> RouteSpec:
    return RouteSpec(model=model, split=SplitSpec(weighted=weighted), **parts)


def crash(plane: DataPlaneInProcess, replica: Replica) -> None:
    """The end of a process, as gateways see it."""

    def end() -> None:
        for server in replica.lanes._servers:
            server.close()
        for lane in list(replica.lanes.lanes):
            lane.abort()

    in_loop(plane, end)


class Load:
    """Clients that ask without a pause through connections that stay open."""

    def __init__(self, gateway: Gateway, clients: int = 4, path: str = IRIS) -> None:
        self.count = clients
        self.answers: list[httpx.Response] = []
        self.failures: list[Exception] = []
        self._url = f"http://127.0.0.1:{gateway.spec.port}{path}"
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        with httpx.Client() as client:
            while not self._stopped.is_set():
                try:
                    answer = client.post(self._url, content=iris())
                except httpx.ConnectError:
                    return  # nobody listens any more, so a client goes elsewhere
                except httpx.HTTPError as error:
                    self.failures.append(error)
                    return
                self.answers.append(answer)

    @property
    def versions(self) -> list[str]:
        return [answer.headers["x-nstarx-version"] for answer in self.answers]

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def all_were_answered(self) -> bool:
        return not self.failures and {answer.status_code for answer in self.answers} == {200}


@contextmanager
def load(gateway: Gateway, **options: Any) -> Iterator[Load]:
    clients = Load(gateway, **options)
    for thread in clients._threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.stop()


# Deadlines


def test_request_that_hangs_is_answered_at_its_deadline_and_its_work_withdrawn(
    served: DataPlaneInProcess, gateway: Gateway
) -> None:
    before = codes(gateway, "flaky@1.0.0").get(504, 0)
    with Wire(gateway) as first, Wire(gateway) as second:
        with hanging(served) as replica:
            cancelled = replica.batcher.counters.cancelled + replica.batcher.counters.expired
            first.send(post(FLAKY, flaky(1.0)))
            served.until(lambda: in_flight(gateway) == 1)
            second.send(post(FLAKY, flaky(2.0), "X-Request-Timeout-Seconds: 0.05"))
            answer = second.answer()
            assert (answer.status, "0.05 s" in answer.error) == (504, True)
            assert second.is_usable()
            in_loop(served, lambda: expire_overdue(gateway.all_lanes(), NEVER))
            answer = first.answer()
            assert (answer.status, "30 s" in answer.error) == (504, True)
        assert codes(gateway, "flaky@1.0.0")[504] - before == 2
        counters = replica.batcher.counters
        served.until(lambda: counters.cancelled + counters.expired > cancelled)
        assert first.send(post(FLAKY, flaky(3.0))).answer().json["outputs"][0]["data"] == [6.0]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "1e9", ""])
def test_deadline_that_is_no_time_is_refused(gateway: Gateway, seconds: str) -> None:
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris(), f"X-Request-Timeout-Seconds: {seconds}")).answer()
        assert (answer.status, "x-request-timeout-seconds" in answer.error) == (400, True)
        assert wire.is_usable()


def test_client_may_shorten_the_time_of_a_route_but_not_lengthen_it(plane: DataPlaneInProcess) -> None:
    plane.replica("flaky@1.0.0")
    gateway = plane.gateway((route("flaky", {"flaky@1.0.0": 1}, timeout_s=0.05),))
    with Wire(gateway) as wire, hanging(plane):
        answer = wire.send(post(FLAKY, flaky(), "X-Request-Timeout-Seconds: 60")).answer()
        assert (answer.status, "0.05 s" in answer.error) == (504, True)


def test_deadline_holds_while_the_replica_drains(plane: DataPlaneInProcess) -> None:
    replica = plane.replica("flaky@1.0.0")
    gateway = plane.gateway()
    with Wire(gateway) as wire, hanging(plane):
        wire.send(post(FLAKY, flaky()))
        plane.until(lambda: in_flight(gateway) == 1)
        stopping = plane.thread.submit(replica.stop())
        plane.until(lambda: not gateway.table.snapshot.replicas)
        in_loop(plane, lambda: expire_overdue(gateway.all_lanes(), NEVER))
        assert wire.answer().status == 504
    stopping.result(timeout=10)


# Full queues


def test_overloaded_replica_hands_its_request_to_another(plane: DataPlaneInProcess) -> None:
    full, free = plane.replica("iris@1.0.0"), plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    in_loop(plane, lambda: _fill(full))
    with Wire(gateway) as wire:
        assert [wire.send(post(IRIS, iris())).answer().status for _ in range(20)] == [200] * 20
    assert free.batcher.counters.succeeded == 20
    assert full.batcher.counters.rejected > 0
    assert sum(tally.retries for tally in gateway.compiler.tallies.values()) == full.batcher.counters.rejected


def test_overload_everywhere_is_answered_with_when_to_come_back(plane: DataPlaneInProcess) -> None:
    replicas = [plane.replica("iris@1.0.0"), plane.replica("iris@1.0.0")]
    gateway = plane.gateway()
    for replica in replicas:
        in_loop(plane, partial(_fill, replica))
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris())).answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "iris@1.0.0" in answer.error
        assert wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\n\r\n").answer().status == 200
    assert codes(gateway, "iris@1.0.0") == {503: 1}
    assert in_flight(gateway) == 0


def test_gateway_does_not_send_more_than_a_replica_may_have(plane: DataPlaneInProcess) -> None:
    plane.replica("flaky@1.0.0")
    gateway = plane.gateway()
    [lane] = gateway.lanes()
    lane.limit = 1
    with Wire(gateway) as first, Wire(gateway) as second:
        with hanging(plane):
            first.send(post(FLAKY, flaky()))
            plane.until(lambda: len(lane.waiting) == 1)
            answer = second.send(post(FLAKY, flaky())).answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert first.answer().status == 200


def _fill(replica: Replica) -> None:
    """Its queue has no room any more."""
    limits = replica.batcher.spec.limits.model_copy(update={"max_queue_size": 0})
    replica.batcher.spec = replica.batcher.spec.model_copy(update={"limits": limits})


# Dead replicas


def test_replica_that_dies_with_requests_in_hand_costs_nobody_an_answer(plane: DataPlaneInProcess) -> None:
    dying = plane.replica("flaky@1.0.0")
    gateway = plane.gateway()
    wires = [Wire(gateway) for _ in range(8)]
    with hanging(plane):
        for wire in wires:
            wire.send(post(FLAKY, flaky(2.0)))
        plane.until(lambda: in_flight(gateway) == 8)
        plane.replica("flaky@1.0.0")
        plane.settle(gateway)
        crash(plane, dying)
        answers = [wire.answer() for wire in wires]
    assert [answer.status for answer in answers] == [200] * 8
    assert codes(gateway, "flaky@1.0.0") == {200: 8}
    assert sum(tally.retries for tally in gateway.compiler.tallies.values()) == 8
    assert in_flight(gateway) == 0
    for wire in wires:
        wire.close()


def test_replica_that_dies_under_load_costs_nobody_an_answer(plane: DataPlaneInProcess) -> None:
    dying, _ = plane.replica("iris@1.0.0"), plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with load(gateway) as clients:
        plane.until(lambda: len(clients.answers) > 100)
        crash(plane, dying)
        seen = len(clients.answers)
        plane.until(lambda: len(clients.answers) > seen + 100)
    assert clients.all_were_answered()


def test_request_of_a_route_that_is_not_idempotent_is_not_repeated(plane: DataPlaneInProcess) -> None:
    dying = plane.replica("flaky@1.0.0")
    gateway = plane.gateway((route("flaky", {"flaky@1.0.0": 1}, idempotent=False),))
    with Wire(gateway) as wire:
        with hanging(plane):
            wire.send(post(FLAKY, flaky()))
            plane.until(lambda: in_flight(gateway) == 1)
            plane.replica("flaky@1.0.0")
            plane.settle(gateway)
            crash(plane, dying)
            answer = wire.answer()
        assert (answer.status, "flaky@1.0.0" in answer.error) == (503, True)
        assert codes(gateway, "flaky@1.0.0") == {503: 1}
        assert wire.send(post(FLAKY, flaky())).answer().status == 200


def test_request_is_not_repeated_more_often_than_its_route_says(plane: DataPlaneInProcess) -> None:
    first = plane.replica("flaky@1.0.0")
    gateway = plane.gateway((route("flaky", {"flaky@1.0.0": 1}, retry=RetrySpec(num_retries=1)),))
    with Wire(gateway) as wire, hanging(plane):
        wire.send(post(FLAKY, flaky()))
        plane.until(lambda: in_flight(gateway) == 1)
        second, third = plane.replica("flaky@1.0.0"), plane.replica("flaky@1.0.0")
        for replica in (second, third):
            replica.runtime.reconfigure({"hang": True})
        plane.settle(gateway)
        crash(plane, first)
        others = {second.id: second, third.id: third}

        def holders() -> list[Replica]:
            ids = [lane.record.replica for lane in gateway.lanes() if lane.waiting]
            return [others[id] for id in ids if id in others]

        plane.until(lambda: len(holders()) == 1)
        crash(plane, holders()[0])
        assert wire.answer().status == 503
        for replica in (second, third):
            replica.runtime.reconfigure({"hang": False})
    assert codes(gateway, "flaky@1.0.0") == {503: 1}


def test_share_of_a_version_without_replicas_goes_to_the_other(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    dying = plane.replica("iris@1.1.0")
    gateway = plane.gateway((route("iris", {"iris@1.0.0": 1, "iris@1.1.0": 1}),))
    with load(gateway) as clients:
        plane.until(lambda: set(clients.versions) == {"iris@1.0.0", "iris@1.1.0"})
        crash(plane, dying)
        seen = len(clients.answers)
        plane.until(lambda: len(clients.answers) > seen + 100)
    assert clients.all_were_answered()
    assert set(clients.versions[-50:]) == {"iris@1.0.0"}
    assert in_flight(gateway) == 0


def test_nothing_left_is_answered_with_when_to_come_back(plane: DataPlaneInProcess) -> None:
    dying = plane.replica("iris@1.0.0")
    gateway = plane.gateway((route("iris", {"iris@1.0.0": 1}),))
    with Wire(gateway) as wire:
        assert wire.is_usable()
        crash(plane, dying)
        plane.until(lambda: not gateway.lanes())
        answer = wire.send(post(IRIS, iris())).answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "iris@1.0.0" in answer.error
        plane.replica("iris@1.0.0")
        plane.until(lambda: len(gateway.lanes()) == 1)
        assert wire.is_usable()


def test_replica_that_leaves_under_load_costs_nobody_an_answer(plane: DataPlaneInProcess) -> None:
    leaving, _ = plane.replica("iris@1.0.0"), plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with load(gateway) as clients:
        plane.until(lambda: len(clients.answers) > 50)
        plane.call(leaving.stop())
        seen = len(clients.answers)
        plane.until(lambda: len(clients.answers) > seen + 50)
    assert clients.all_were_answered()


# Gateways that stop


def test_gateway_that_stops_under_load_answers_everything_it_has_taken(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    with load(gateway) as clients:
        plane.until(lambda: len(clients.answers) > 50 and len(connections(gateway)) == clients.count)
        plane.call(gateway.stop())
    assert clients.all_were_answered()
    assert sum(answer.headers.get("connection") == "close" for answer in clients.answers) == clients.count
    assert in_flight(gateway) == 0
    assert not connections(gateway)


def test_gateway_that_stops_gives_the_answer_it_owes_and_closes_idle_connections(plane: DataPlaneInProcess) -> None:
    plane.replica("flaky@1.0.0")
    gateway = plane.gateway(drain_s=60.0)
    with Wire(gateway) as idle, Wire(gateway) as busy:
        assert idle.send(post(FLAKY, flaky())).answer().status == 200
        with hanging(plane):
            busy.send(post(FLAKY, flaky(2.0)))
            plane.until(lambda: in_flight(gateway) == 1)
            stopping = plane.thread.submit(gateway.stop())
            plane.until(lambda: gateway.draining)
            later(plane, idle, LINGER_S + 0.5)
            assert idle.is_closed()
            assert in_flight(gateway) == 1
        assert busy.answer().json["outputs"][0]["data"] == [4.0]
        assert busy.is_closed()
    stopping.result(timeout=10)


def test_gateway_that_never_listened_can_be_stopped(plane: DataPlaneInProcess) -> None:
    gateway = plane.gateway()
    other = Gateway("other", "n", gateway.spec, plane.coordinator, RoutesDocument())
    plane.call(other.stop())
    with Wire(gateway) as wire:
        assert wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\n\r\n").answer().status == 200


# A coordinator that is away


class Absent(Coordinator):
    """A coordinator that can be away."""

    away = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("join", "watch", "report", "reports", "members", "routes", "apply_routes") and self.away:
            return _gone
        return super().__getattribute__(name)


async def _gone(*args: Any, **options: Any) -> NoReturn:
    raise CoordinatorUnavailable("it is away in this test")


def test_serving_goes_on_without_the_coordinator_and_takes_the_next_snapshot_when_it_is_back(
    plane: DataPlaneInProcess,
) -> None:
    plane.coordinator = coordinator = Absent()
    plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    admin = f"http://127.0.0.1:{gateway.spec.admin_port}"
    with Wire(gateway) as wire, httpx.Client(base_url=admin) as client:
        plane.until(lambda: _listens(client))
        coordinator.away = True
        plane.replica("iris@1.1.0")  # wakes the watch that is under way; what it asks next is not answered
        plane.until(lambda: gateway.table.snapshot.number == plane.coordinator_number())
        in_loop(plane, lambda: coordinator._publish())
        assert wire.is_usable()
        assert client.get("/status").json()["coordinator"] == "away"
        assert client.get("/metrics").status_code == 200
        answer = client.get("/routes")
        assert (answer.status_code, "coordinator" in answer.json()["error"]) == (503, True)
        assert wire.is_usable()
        assert gateway.table.snapshot.number < plane.coordinator_number()
        coordinator.away = False
        plane.until(lambda: gateway.table.snapshot.number == plane.coordinator_number())
        assert client.get("/status").json()["coordinator"] == "present"
        assert orjson.loads(client.get("/status").content)["versions"][0]["version"] == "iris@1.0.0"


def _listens(client: httpx.Client) -> bool:
    try:
        return client.get("/status").status_code == 200
    except httpx.ConnectError:
        return False


def test_snapshot_that_can_not_be_taken_does_not_end_the_following(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = plane.gateway()
    took = gateway.apply

    def fails(snapshot: Any) -> None:
        gateway.apply = took  # type: ignore[method-assign]
        raise KeyError("a snapshot that makes no sense")

    gateway.apply = fails  # type: ignore[method-assign]
    plane.replica("iris@1.1.0")
    plane.until(lambda: len(gateway.lanes()) == 2)
    with Wire(gateway) as wire:
        assert wire.is_usable()
