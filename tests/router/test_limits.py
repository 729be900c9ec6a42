"""Admission, rate limits and fallbacks over real sockets: overload is answered at once, and nobody is let in twice."""

from contextlib import ExitStack
from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.admission import AdmissionSpec, QueueSpec
from nstarx.spec.key import KeySpec
from nstarx.spec.rate_limit import RateLimitSpec
from nstarx.spec.record import parse
from nstarx.spec.retry import RetrySpec
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.split import SplitSpec
from router.admitting import Gate
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.replicas import REF, admin, ask, configure, cut, route, serve
from tests.router.test_failures import crash
from tests.router.wire import FLAKY, IRIS, Answer, Wire, codes, flaky, hanging, in_flight, iris, post

ONE = AdmissionSpec(min_concurrency=1, max_concurrency_limit=1, queue=QueueSpec(max_queue_size=2, priority_levels=3))


def gate(gateway: Gateway) -> Gate:
    [found] = gateway.compiler.restraints.gates.values()
    return found


class Crowd:
    """Clients that ask at the same time, each on a connection of its own."""

    def __init__(self, plane: DataPlaneInProcess, gateway: Gateway) -> None:
        self.plane, self.gateway = plane, gateway
        self.wires: list[Wire] = []

    def ask(self, value: float, *headers: str) -> Wire:
        """One more; it has been let in, queued or answered when this returns."""
        wire = Wire(self.gateway)
        self.wires.append(wire)
        before = self._seen()
        wire.send(post(FLAKY, flaky(value), *headers))
        self.plane.until(lambda: self._seen() > before)
        return wire

    def _seen(self) -> int:
        return sum(tally.started for tally in self.gateway.compiler.tallies.values())

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def crowd(plane: DataPlaneInProcess, stack: ExitStack, **parts: Any) -> Crowd:
    gateway = serve(plane, route(admission=ONE, **parts), replicas=1)
    made = Crowd(plane, gateway)
    stack.callback(made.close)
    return made


def values(*wires: Wire) -> list[float]:
    return [wire.answer().json["outputs"][0]["data"][0] for wire in wires]


# Admission


def test_version_gets_one_at_a_time_and_the_others_wait_or_come_back(
    plane: DataPlaneInProcess, stack: ExitStack
) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        first, second, third = (people.ask(value) for value in (1.0, 2.0, 3.0))
        assert [len(lane.waiting) for lane in people.gateway.lanes()] == [1]
        assert gate(people.gateway).reading()["waiting"] == 2
        answer = people.ask(4.0).answer()
        assert (answer.status, "is at its limit" in answer.error, int(answer.headers["retry-after"]) >= 1) == (
            503, True, True,
        )  # fmt: skip
    assert values(first, second, third) == [2.0, 4.0, 6.0]
    plane.until(lambda: gate(people.gateway).reading()["in_flight"] == 0)
    assert codes(people.gateway, REF) == {200: 3, 503: 1}
    assert in_flight(people.gateway) == 0
    metrics = admin(people.gateway, "/metrics").text
    labels = f'{{gateway="{people.gateway.id}",route="flaky",version="{REF}"}}'
    assert f"nstarx_concurrency_limit{labels} 1.0" in metrics
    assert f"nstarx_admission_rejected_total{labels} 1.0" in metrics


def test_higher_priority_goes_first_and_the_lowest_makes_room(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        begun = people.ask(1.0)
        low = people.ask(2.0, "X-NStarX-Priority: 3")
        lower = people.ask(3.0, "X-NStarX-Priority: 3")
        urgent = people.ask(4.0, "X-NStarX-Priority: 1")
        assert lower.answer().status == 503
    assert values(begun, urgent, low) == [2.0, 8.0, 4.0]


def test_priority_that_is_no_number_is_refused(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    for nonsense in ("high", "-1", "1.5", "1e3", "12345", ""):
        answer = people.ask(1.0, f"X-NStarX-Priority: {nonsense}").answer()
        assert (answer.status, "x-nstarx-priority" in answer.error) == (400, True)
    assert people.ask(1.0, "X-NStarX-Priority: 9").answer().status == 200
    assert in_flight(people.gateway) == 0


def test_who_waits_until_the_deadline_is_told_so(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        first = people.ask(1.0)
        answer = people.ask(2.0, "X-Request-Timeout-Seconds: 0.05").answer()
        assert (answer.status, "0.05 s" in answer.error) == (504, True)
        assert gate(people.gateway).reading()["waiting"] == 0
    assert values(first) == [2.0]
    assert people.ask(3.0).answer().status == 200


def test_client_that_leaves_the_queue_leaves_its_place(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        first = people.ask(1.0)
        people.ask(2.0).close()
        plane.until(lambda: gate(people.gateway).reading()["waiting"] == 0)
        third = people.ask(3.0)
    assert values(first, third) == [2.0, 6.0]
    assert codes(people.gateway, REF) == {200: 2, 499: 1}


def test_client_that_leaves_while_it_is_served_leaves_its_place(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        first = people.ask(1.0)
        second = people.ask(2.0)
        first.close()
        plane.until(lambda: codes(people.gateway, REF).get(499) == 1)
    assert values(second) == [4.0]
    plane.until(lambda: gate(people.gateway).reading()["in_flight"] == 0)


def test_places_are_given_back_however_calls_end(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    retry = RetrySpec(retry_on=("server_error", "reset", "refused"), num_retries=2)
    people = crowd(plane, stack, retry=retry)
    [replica] = plane.replicas
    configure(plane, replica, error_rate=1.0)
    assert people.ask(1.0).answer().status == 500
    configure(plane, replica, error_rate=0.5)
    assert people.ask(1.0).answer().status == 200
    cut(plane, replica)
    plane.until(lambda: not people.gateway.lanes())
    assert people.ask(1.0).answer().status == 503
    assert gate(people.gateway).reading()["in_flight"] == 0
    plane.until(lambda: bool(people.gateway.lanes()))
    configure(plane, replica)
    assert people.ask(5.0).answer().status == 200
    assert gate(people.gateway).reading()["in_flight"] == 0


def test_queue_empties_when_the_version_is_gone(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    waiting = AdmissionSpec(min_concurrency=1, max_concurrency_limit=1, queue=QueueSpec(max_queue_size=500))
    gateway = serve(plane, route(admission=waiting), replicas=1)
    people = Crowd(plane, gateway)
    stack.callback(people.close)
    with hanging(plane):
        wires = [people.ask(1.0) for _ in range(40)]
        crash(plane, plane.replicas[0])
        assert {wire.answer().status for wire in wires} == {503}
    assert (in_flight(gateway), gate(gateway).reading()["in_flight"]) == (0, 0)


def test_new_limits_of_a_route_forget_nobody_who_waits(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    people = crowd(plane, stack)
    with hanging(plane):
        first, second = people.ask(1.0), people.ask(2.0)
        wider = ONE.model_copy(update={"max_concurrency_limit": 5})
        document = RoutesDocument(routes=(route(admission=wider),))
        plane.call(plane.coordinator.apply_routes(document))
        plane.settle(people.gateway)
        third = people.ask(3.0)
    assert values(first, second, third) == [2.0, 4.0, 6.0]
    plane.until(lambda: not people.gateway.compiler.restraints.closing)


def test_candidate_without_room_is_rescued_by_the_stable_version(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    plane.replica("flaky@1.0.0")
    plane.replica("echo@1.0.0")
    canary = {"canary": {"stable": "echo@1.0.0", "candidate": REF, "percent": 100}}
    spec = ONE.model_copy(update={"queue": QueueSpec(max_queue_size=0)})
    gateway = plane.gateway((route(split=SplitSpec.model_validate(canary), admission=spec),))
    people = Crowd(plane, gateway)
    stack.callback(people.close)
    with hanging(plane):
        people.ask(1.0)
        answer = people.ask(2.0).answer()
    assert answer.headers["x-nstarx-rescued"] == REF
    assert answer.headers["x-nstarx-version"] == "echo@1.0.0"


# Rate limits


def limited(**parts: Any) -> RouteSpec:
    limit = {"name": "per-user", "requests": 2, "window_s": 60, "key": KeySpec(header="x-user"), **parts}
    return RouteSpec(
        model="iris", split=SplitSpec(weighted={"iris@1.0.0": 1}), rate_limits=(RateLimitSpec.model_validate(limit),)
    )


def as_user(wire: Wire, name: str, path: str = IRIS) -> Answer:
    return wire.send(post(path, iris(), f"X-User: {name}")).answer()


def test_caller_gets_what_the_limit_grants_and_is_told_what_is_left(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = plane.gateway((limited(),))
    with Wire(gateway) as wire:
        first, second, third = (as_user(wire, "ann") for _ in range(3))
        assert (first.status, first.headers["ratelimit"]) == (200, '"per-user";r=1;t=30')
        assert first.headers["ratelimit-policy"] == '"per-user";q=2;w=60'
        assert (second.status, second.headers["ratelimit"]) == (200, '"per-user";r=0;t=60')
        assert (third.status, third.headers["ratelimit"].startswith('"per-user";r=0;t=')) == (429, True)
        assert "limit 'per-user' grants 2 requests in 60 s" in third.error
        assert 1 <= int(third.headers["retry-after"]) <= 30
        assert as_user(wire, "bob").status == 200
        assert wire.is_usable()
        direct = as_user(wire, "ann", "/v2/models/iris/versions/1.0.0/infer")
        assert direct.status == 429
    assert codes(gateway, "iris@1.0.0") == {200: 4}
    assert gateway.refused == {429: 2}
    metrics = admin(gateway, "/metrics").text
    assert f'nstarx_rate_limited_total{{gateway="{gateway.id}",limit="per-user",route="iris"}} 2.0' in metrics


def test_two_gateways_grant_half_of_a_limit_each(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    spec = limited(requests=20)
    gateways = [plane.gateway((spec,)) for _ in range(2)]
    for gateway in gateways:
        plane.until(lambda gateway=gateway: gateway.compiler.restraints.gateways == 2)  # type: ignore[misc]
        with Wire(gateway) as wire:
            assert [as_user(wire, "ann").status for _ in range(11)] == [200] * 10 + [429]


def test_limit_goes_on_counting_when_other_things_of_a_route_change(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    gateway = plane.gateway((limited(),))
    with Wire(gateway) as wire:
        assert [as_user(wire, "ann").status for _ in range(3)] == [200, 200, 429]
        slower = limited().model_copy(update={"timeout_s": 5.0})
        other = RateLimitSpec(name="all", requests=1000)
        both = slower.model_copy(update={"rate_limits": (*slower.rate_limits, other)})
        for changed in (slower, both):
            plane.call(plane.coordinator.apply_routes(RoutesDocument(routes=(changed,))))
            plane.settle(gateway)
            assert as_user(wire, "ann").status == 429
        answer = as_user(wire, "bob")
        assert answer.headers["ratelimit-policy"] == '"per-user";q=2;w=60, "all";q=1000;w=60'


def test_two_limits_of_one_name_are_refused() -> None:
    document = {
        "model": "iris",
        "split": {"weighted": {"iris@1.0.0": 1}},
        "rate_limits": [{"requests": 1}, {"requests": 2, "window_s": 1}],
    }
    with pytest.raises(InvalidConfiguration, match="default is the name of more than one limit"):
        parse(RouteSpec, document, "routes")


# Fallback


def test_another_version_answers_when_a_route_has_nobody_left(plane: DataPlaneInProcess) -> None:
    dying = plane.replica("iris@1.1.0")
    plane.replica("iris@1.0.0")
    fallback = {"version": "iris@1.0.0"}
    document = {"model": "iris", "split": {"weighted": {"iris@1.1.0": 1}}, "fallback": fallback}
    gateway = plane.gateway((parse(RouteSpec, document, "routes"),))
    with Wire(gateway) as wire:
        assert wire.send(post(IRIS, iris())).answer().headers["x-nstarx-version"] == "iris@1.1.0"
        crash(plane, dying)
        plane.until(lambda: len(gateway.lanes()) == 1)
        answer = wire.send(post(IRIS, iris())).answer()
    headers = answer.headers
    assert (answer.status, headers["x-nstarx-version"], headers["x-nstarx-role"]) == (200, "iris@1.0.0", "fallback")
    assert in_flight(gateway) == 0


def test_static_answer_is_given_when_a_route_has_nobody_left(plane: DataPlaneInProcess) -> None:
    body = {"outputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [0]}]}
    document = {
        "model": "iris",
        "split": {"weighted": {"iris@1.1.0": 1}},
        "fallback": {"static": {"body": body, "status": 200}},
    }
    gateway = plane.gateway((parse(RouteSpec, document, "routes"),))
    with Wire(gateway) as wire:
        answer = wire.send(post(IRIS, iris())).answer()
        assert (answer.status, answer.headers["x-nstarx-fallback"], answer.json) == (200, "true", body)
        plane.replica("iris@1.1.0")
        plane.settle(gateway)
        assert "x-nstarx-fallback" not in wire.send(post(IRIS, iris())).answer().headers


def test_route_without_limits_stays_on_the_short_way(plane: DataPlaneInProcess) -> None:
    gateway = serve(plane, route(), replicas=1)
    with Wire(gateway) as wire:
        assert ask(wire, 1) == {200: 1}
    target = gateway.table.at(FLAKY.encode())
    assert target
    assert target.stages == ()
