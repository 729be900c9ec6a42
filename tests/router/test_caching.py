"""A cache between clients and versions: who is answered from it, who waits, and when nothing kept is given any more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.records import PURGES, CachePurge, Snapshot
from judging.standing import Standing
from nstarx.errors import InvalidConfiguration
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument, RouteSpec
from router.caching import selecting
from router.gateway import Gateway
from router.stale import stale
from serving.replica import Replica
from tests.cluster.samples import replica as record
from tests.cluster.samples import spec
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.test_failures import crash
from tests.router.wire import Answer, Wire, codes, flaky, in_flight, in_loop, post

OLD, NEW = "model@1.0.0", "model@2.0.0"
PATH = "/v2/models/model/infer"
COUNTS = """
import time
class Model:
    def __init__(self):
        self.runs, self.hangs, self.fails, self.factor = 0, False, False, {factor}
    def reconfigure(self, settings):
        for name, value in settings.items():
            setattr(self, name, value)
    def infer(self, inputs):
        self.runs += 1
        while self.hangs:
            time.sleep(0.005)
        if self.fails:
            raise RuntimeError('told to fail')
        return {{'y': inputs['x'] * self.factor}}
"""

Serve = Callable[..., tuple[DataPlaneInProcess, Gateway]]


@pytest.fixture
def serve(tmp_path: Path, write_model: WriteModel) -> Iterator[Serve]:
    """Serve `model` in two versions, of which 1.0.0 doubles and 2.0.0 trebles, behind a route with a cache."""
    planes: list[DataPlaneInProcess] = []

    def start(gateways: int = 1, **parts: Any) -> tuple[DataPlaneInProcess, Gateway]:
        write_model("model", COUNTS.format(factor=2))
        write_model("model", COUNTS.format(factor=3), "2.0.0")
        plane = DataPlaneInProcess(tmp_path)
        planes.append(plane)
        plane.replica(OLD)
        plane.replica(NEW)
        for _ in range(gateways):
            plane.gateway((route(**parts),))
        return plane, plane.gateways[0]

    yield start
    for plane in planes:
        plane.close()


def route(**parts: Any) -> RouteSpec:
    return RouteSpec.model_validate({"model": "model", "split": {"weighted": {OLD: 1}}, "cache": {}, **parts})


def canary(percent: float = 100, **parts: Any) -> dict[str, Any]:
    return {"split": {"canary": {"stable": OLD, "candidate": NEW, "percent": percent}}, **parts}


def model(plane: DataPlaneInProcess, ref: str = OLD) -> Any:
    """The object that infers."""
    [replica] = [replica for replica in plane.replicas if str(replica.ref) == ref]
    return replica.runtime._model  # type: ignore[attr-defined]


def ask(wire: Wire, value: float = 1.0, *headers: str) -> Answer:
    return wire.send(post(PATH, flaky(value), *headers)).answer()


def data(answer: Answer) -> Any:
    return answer.json["outputs"][0]["data"]


def waiting(gateway: Gateway) -> int:
    """Requests that wait for others."""
    return sum(
        len(flight.followers) for cache in gateway.compiler.caches.values() for flight in cache.cache._flights._all
    )


def verdicts(answers: list[Answer]) -> list[str]:
    return sorted(answer.headers["x-nstarx-cache"] for answer in answers)


# One client


def test_question_asked_again_is_answered_without_a_replica(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        first, again, other = ask(wire), ask(wire), ask(wire, 2.0)
    assert [answer.headers["x-nstarx-cache"] for answer in (first, again, other)] == ["miss", "hit", "miss"]
    assert (data(first), data(again), data(other)) == ([2.0], [2.0], [4.0])
    for name in ("x-nstarx-version", "x-nstarx-role", "content-type", "etag", "vary", "cache-control"):
        assert first.headers[name] == again.headers[name]
    assert again.headers["age"] == "0"
    assert (again.headers["x-nstarx-version"], again.headers["x-nstarx-role"]) == (OLD, "primary")
    assert "date" in again.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert model(plane).runs == 2


def test_answers_from_the_cache_are_counted_apart_so_that_nobody_judges_the_version_by_them(serve: Serve) -> None:
    _, gateway = serve()
    with Wire(gateway) as wire:
        for _ in range(5):
            ask(wire)
    assert codes(gateway, OLD) == {200: 1}
    assert codes(gateway, OLD, "cache") == {200: 4}
    assert in_flight(gateway) == 0


def test_client_that_has_the_answer_is_told_so(serve: Serve) -> None:
    _, gateway = serve()
    with Wire(gateway) as wire:
        etag = ask(wire).headers["etag"]
        wire.send(post(PATH, flaky(1.0), f"If-None-Match: {etag}"))
        assert wire.line() == b"HTTP/1.1 304 Not Modified\r\n"
        while wire.line() != b"\r\n":
            pass
        assert ask(wire).headers["x-nstarx-cache"] == "hit"
    assert codes(gateway, OLD, "cache") == {304: 1, 200: 1}


def test_client_that_wants_no_kept_answer_gets_none(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        answers = [ask(wire, 1.0, f"Cache-Control: {word}") for word in ("max-age=60", "no-cache", "no-store")]
        assert [answer.headers["x-nstarx-cache"] for answer in answers] == ["miss", "miss", "bypass"]
        assert answers[2].headers["cache-control"] == "no-store"
        assert ask(wire).headers["x-nstarx-cache"] == "hit"
    assert model(plane).runs == 3


def test_errors_are_not_kept_and_tell_caches_in_front_so(serve: Serve) -> None:
    plane, gateway = serve()
    model(plane).fails = True
    with Wire(gateway) as wire:
        answers = [ask(wire), ask(wire)]
        assert [(a.status, a.headers["x-nstarx-cache"], a.headers["cache-control"]) for a in answers] == [
            (500, "bypass", "no-store")
        ] * 2
        assert model(plane).runs == 2
        model(plane).fails = False
        assert (ask(wire).headers["x-nstarx-cache"], ask(wire).headers["x-nstarx-cache"]) == ("miss", "hit")


def test_version_that_the_client_names_has_answers_of_its_own(serve: Serve) -> None:
    _, gateway = serve()
    direct = "/v2/models/model/versions/2.0.0/infer"
    with Wire(gateway) as wire:
        assert data(ask(wire)) == [2.0]
        answers = [wire.send(post(direct, flaky(1.0))).answer() for _ in range(2)]
        assert [data(answer) for answer in answers] == [[3.0], [3.0]]
        assert [answer.headers["x-nstarx-cache"] for answer in answers] == ["miss", "hit"]
        assert {answer.headers["x-nstarx-role"] for answer in answers} == {"direct"}


def test_requests_that_are_sent_ahead_are_answered_in_order(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        wire.send(b"".join(post(PATH, flaky(value), f"X-Request-Id: {value:g}") for value in (1, 1, 2, 1)))
        answers = [wire.answer() for _ in range(4)]
    assert [answer.headers["x-request-id"] for answer in answers] == ["1", "1", "2", "1"]
    assert [data(answer)[0] for answer in answers] == [2.0, 2.0, 4.0, 2.0]
    assert model(plane).runs == 2


def test_hundreds_of_questions_sent_ahead_behind_a_slow_one_are_all_answered(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        ask(wire, 2.0)
        model(plane).hangs = True
        wire.send(post(PATH, flaky(1.0)) + 500 * post(PATH, flaky(2.0)))
        plane.until(lambda: in_flight(gateway) == 1)
        model(plane).hangs = False
        assert [data(wire.answer())[0] for _ in range(501)] == [2.0] + 500 * [4.0]


def test_last_answer_of_a_connection_may_come_from_the_cache(serve: Serve) -> None:
    _, gateway = serve()
    with Wire(gateway) as wire:
        ask(wire)
        answer = ask(wire, 1.0, "Connection: close")
        assert (answer.headers["x-nstarx-cache"], answer.headers["connection"]) == ("hit", "close")
        assert wire.is_closed()


# Many clients at once


def together(plane: DataPlaneInProcess, gateway: Gateway, wires: list[Wire], *headers: str) -> None:
    """Every client asks the same; the first one's request runs, and the others wait for it."""
    for number, wire in enumerate(wires):
        wire.send(post(PATH, flaky(1.0), *headers))
        plane.until(lambda number=number: in_flight(gateway) == number + 1)  # type: ignore[misc]
    plane.until(lambda: waiting(gateway) == len(wires) - 1)


@pytest.fixture
def wires() -> Iterator[Callable[[Gateway, int], list[Wire]]]:
    with ExitStack() as stack:
        yield lambda gateway, count: [stack.enter_context(Wire(gateway)) for _ in range(count)]


def test_identical_requests_at_once_run_once(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    clients = wires(gateway, 4)
    model(plane).hangs = True
    together(plane, gateway, clients)
    model(plane).hangs = False
    answers = [wire.answer() for wire in clients]
    assert [data(answer) for answer in answers] == [[2.0]] * 4
    assert verdicts(answers) == ["miss", "shared", "shared", "shared"]
    assert model(plane).runs == 1
    assert (codes(gateway, OLD), codes(gateway, OLD, "cache")) == ({200: 1}, {200: 3})
    assert in_flight(gateway) == 0


def test_when_the_first_client_goes_away_the_next_one_runs_the_request(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    first, *others = clients = wires(gateway, 3)
    model(plane).hangs = True
    together(plane, gateway, clients)
    first.close()
    plane.until(lambda: codes(gateway, OLD) == {499: 1})
    assert waiting(gateway) == 1
    model(plane).hangs = False
    assert verdicts([wire.answer() for wire in others]) == ["miss", "shared"]
    assert in_flight(gateway) == 0


def test_client_that_waits_and_goes_away_is_forgotten(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    first, second = clients = wires(gateway, 2)
    model(plane).hangs = True
    together(plane, gateway, clients)
    second.close()
    plane.until(lambda: codes(gateway, OLD, "cache") == {499: 1})
    assert waiting(gateway) == 0
    model(plane).hangs = False
    assert first.answer().status == 200
    assert in_flight(gateway) == 0


def test_failure_is_the_first_clients_own_and_a_second_one_ends_the_waiting(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    clients = wires(gateway, 5)
    model(plane).hangs = model(plane).fails = True
    together(plane, gateway, clients)
    model(plane).hangs = False
    assert [wire.answer().status for wire in clients] == [500] * 5
    assert model(plane).runs == 5
    assert codes(gateway, OLD) == {500: 5}
    assert (codes(gateway, OLD, "cache"), in_flight(gateway)) == ({}, 0)


def test_nobody_waits_longer_than_its_own_time(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    first, second = wires(gateway, 2)
    model(plane).hangs = True
    together(plane, gateway, [first])
    second.send(post(PATH, flaky(1.0), "X-Request-Timeout-Seconds: 0.05"))
    answer = second.answer()
    assert (answer.status, "0.05 s" in answer.error) == (504, True)
    assert codes(gateway, OLD, "cache") == {504: 1}
    assert codes(gateway, OLD) == {}
    model(plane).hangs = False
    assert first.answer().status == 200
    assert ask(second).headers["x-nstarx-cache"] == "hit"


def test_when_the_first_runs_out_of_time_the_next_runs_the_request_with_a_time_of_its_own(
    serve: Serve, wires: Any
) -> None:
    plane, gateway = serve()
    first, second = wires(gateway, 2)
    model(plane).hangs = True
    first.send(post(PATH, flaky(1.0), "X-Request-Timeout-Seconds: 0.2"))
    plane.until(lambda: in_flight(gateway) == 1)
    second.send(post(PATH, flaky(1.0)))
    plane.until(lambda: waiting(gateway) == 1)
    assert first.answer().status == 504
    plane.until(lambda: waiting(gateway) == 0)
    model(plane).hangs = False
    answer = second.answer()
    assert (answer.status, answer.headers["x-nstarx-cache"]) == (200, "miss")
    assert in_flight(gateway) == 0


def test_replica_that_dies_costs_nobody_an_answer(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    clients = wires(gateway, 3)
    dying: Replica = plane.replicas[0]
    dying.runtime._model.hangs = True  # type: ignore[attr-defined]
    together(plane, gateway, clients)
    plane.replica(OLD)
    plane.settle(gateway)
    crash(plane, dying)
    assert verdicts([wire.answer() for wire in clients]) == ["miss", "shared", "shared"]
    dying.runtime._model.hangs = False  # type: ignore[attr-defined]


def test_those_who_wait_when_the_route_loses_its_cache_are_answered(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    clients = wires(gateway, 3)
    model(plane).hangs = True
    together(plane, gateway, clients)
    plane.call(plane.coordinator.apply_routes(RoutesDocument(routes=(route(cache=None),))))
    plane.settle(gateway)
    assert not gateway.compiler.caches
    model(plane).hangs = False
    assert verdicts([wire.answer() for wire in clients]) == ["miss", "shared", "shared"]
    assert "x-nstarx-cache" not in ask(clients[0]).headers
    plane.until(lambda: not gateway.compiler._closing)


def test_those_who_wait_for_an_answer_take_no_place_in_the_version_until_they_run_the_request(
    serve: Serve, wires: Any
) -> None:
    one = {"min_concurrency": 1, "max_concurrency_limit": 1, "queue": {"max_queue_size": 1}}
    plane, gateway = serve(admission=one, rate_limits=[{"name": "all", "requests": 1000}])
    first, *others = clients = wires(gateway, 4)
    model(plane).hangs = True
    together(plane, gateway, clients)
    first.close()
    plane.until(lambda: codes(gateway, OLD) == {499: 1} and waiting(gateway) == 2)
    model(plane).hangs = False
    assert verdicts([wire.answer() for wire in others]) == ["miss", "shared", "shared"]
    assert codes(gateway, OLD) == {499: 1, 200: 1}
    plane.until(lambda: in_flight(gateway) == 0)
    with Wire(gateway) as wire:
        assert ask(wire, 2.0).status == 200


# Candidates


def test_candidate_never_answers_with_what_the_stable_version_said(serve: Serve) -> None:
    plane, gateway = serve(**canary(50))
    with Wire(gateway) as wire:
        answers = [ask(wire) for _ in range(40)]
    assert {(a.headers["x-nstarx-version"], data(a)[0]) for a in answers} == {(OLD, 2.0), (NEW, 3.0)}
    assert (model(plane, OLD).runs, model(plane, NEW).runs) == (1, 1)
    assert codes(gateway, NEW, "cache")[200] + codes(gateway, NEW, "candidate")[200] == 20


def test_rescue_is_answered_from_what_the_stable_version_said(serve: Serve) -> None:
    plane, gateway = serve(**canary(demotion=None))
    model(plane, NEW).fails = True
    with Wire(gateway) as wire:
        answers = [ask(wire) for _ in range(3)]
    assert [answer.headers["x-nstarx-cache"] for answer in answers] == ["miss", "hit", "hit"]
    assert {(a.headers["x-nstarx-version"], a.headers["x-nstarx-rescued"], data(a)[0]) for a in answers} == {
        (OLD, NEW, 2.0)
    }
    assert {answer.headers["x-nstarx-role"] for answer in answers} == {"rescue"}
    assert model(plane, OLD).runs == 1
    assert codes(gateway, NEW, "candidate") == {500: 3}
    assert (codes(gateway, OLD, "rescue"), codes(gateway, OLD, "cache")) == ({200: 1}, {200: 2})
    model(plane, NEW).fails = False
    with Wire(gateway) as wire:
        assert data(ask(wire)) == [3.0]


def test_those_who_wait_for_a_candidate_that_fails_are_rescued_too(serve: Serve, wires: Any) -> None:
    plane, gateway = serve(**canary(demotion=None))
    clients = wires(gateway, 4)
    model(plane, NEW).hangs = model(plane, NEW).fails = True
    together(plane, gateway, clients)
    model(plane, NEW).hangs = False
    answers = [wire.answer() for wire in clients]
    assert [data(answer) for answer in answers] == [[2.0]] * 4
    assert model(plane, OLD).runs == 1
    assert in_flight(gateway) == 0


# Purges


def test_purge_by_a_surrogate_key_reaches_every_gateway(serve: Serve) -> None:
    plane, _ = serve(gateways=2)
    for gateway in plane.gateways:
        with Wire(gateway) as wire:
            assert [ask(wire).headers["x-nstarx-cache"] for _ in range(2)] == ["miss", "hit"]
    admin = f"http://127.0.0.1:{plane.gateways[1].spec.admin_port}"
    plane.until(lambda: answers(admin))
    kept = httpx.post(f"{admin}/cache/purge", json={"key": f"version:{NEW}"}).json()
    assert (kept["key"], kept["warnings"]) == (f"version:{NEW}", [])
    assert [cache["entries"] for cache in httpx.get(f"{admin}/cache").json()] == [1, 1]
    httpx.post(f"{admin}/cache/purge", json={"key": f"version:{OLD}"}).raise_for_status()
    assert [(c["route"], c["entries"], c["hits"]) for c in httpx.get(f"{admin}/cache").json()] == [("model", 0, 1)] * 2
    for gateway in plane.gateways:
        with Wire(gateway) as wire:
            assert ask(wire).headers["x-nstarx-cache"] == "miss"
    events = [event for event in plane.call(plane.coordinator.events(0)) if event.kind == "CachePurged"]
    assert [event.details["key"] for event in events] == [f"version:{NEW}", f"version:{OLD}"]
    assert "a person asked" in events[0].sentence


def answers(admin: str) -> bool:
    try:
        return httpx.get(f"{admin}/cache").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize("document", [{"key": "iris"}, {"key": "version:"}, {"key": "tensor:x"}, {}, {"key": 1}])
def test_purge_of_what_is_no_surrogate_key_is_refused(serve: Serve, document: Any) -> None:
    plane, gateway = serve()
    admin = f"http://127.0.0.1:{gateway.spec.admin_port}"
    plane.until(lambda: answers(admin))
    answer = httpx.post(f"{admin}/cache/purge", json=document)
    assert (answer.status_code, "key" in answer.json()["error"]) == (400, True)


def test_new_settings_of_a_version_end_what_it_has_said(serve: Serve) -> None:
    plane, gateway = serve()
    admin = f"http://127.0.0.1:{gateway.spec.admin_port}"
    plane.until(lambda: answers(admin))
    with Wire(gateway) as wire:
        assert [data(ask(wire)) for _ in range(2)] == [[2.0], [2.0]]
        patched = httpx.patch(f"{admin}/versions/{OLD}/settings", json={"factor": 7}, timeout=20)
        assert patched.json()["warnings"] == []
        assert data(ask(wire)) == [7.0]


def test_what_a_replica_says_before_it_has_heard_of_new_settings_is_not_kept_after_all_have(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        plane.call(plane.coordinator.apply_settings(OLD, {"factor": 7}))
        plane.settle(gateway)
        late = ask(wire)
        assert late.headers["x-nstarx-cache"] == "miss"
        plane.until(lambda: model(plane).factor == 7)
        plane.call(plane.coordinator.purge_caches(f"version:{OLD}", "its settings are in force"))
        plane.settle(gateway)
        assert data(ask(wire)) == [7.0]


def test_demotion_ends_what_the_version_has_said(serve: Serve) -> None:
    plane, gateway = serve(**canary(50))
    with Wire(gateway) as wire:
        for _ in range(4):
            ask(wire)
        assert gateway.compiler.caches["model"].reading()["entries"] == 2
        model(plane, NEW).fails = True
        for value in range(200):
            ask(wire, 10.0 + value)
        plane.until(lambda: bool(plane.call(plane.coordinator.snapshot()).demotions))
        direct = wire.send(post("/v2/models/model/versions/2.0.0/infer", flaky(1.0))).answer()
        assert direct.status == 500
        assert data(ask(wire)) == [2.0]


def test_cache_outlives_a_change_of_weights_and_not_one_of_its_own_rules(serve: Serve) -> None:
    plane, gateway = serve()
    with Wire(gateway) as wire:
        ask(wire)
        change(plane, gateway, route(split={"weighted": {OLD: 1, NEW: 0}}))
        assert ask(wire).headers["x-nstarx-cache"] == "hit"
        change(plane, gateway, route(split={"weighted": {OLD: 1, NEW: 0}}, cache={"ttl_s": 1000}))
        assert ask(wire).headers["x-nstarx-cache"] == "miss"


def change(plane: DataPlaneInProcess, gateway: Gateway, to: RouteSpec) -> None:
    plane.call(plane.coordinator.apply_routes(RoutesDocument(routes=(to,))))
    plane.settle(gateway)


def test_answers_grow_too_old(serve: Serve) -> None:
    plane, gateway = serve(cache={"ttl_s": 0.001})
    with Wire(gateway) as wire:
        ask(wire)
        plane.until(lambda: gateway.compiler.caches["model"].reading()["expirations"] == 1)
        assert ask(wire).headers["x-nstarx-cache"] == "miss"


# What a snapshot takes out

SERVED = Snapshot(
    number=5, models={ref: spec(ref) for ref in (OLD, NEW)}, replicas=(record("r1"),), routes=(route(**canary()),)
)


def changed(**parts: Any) -> Snapshot:
    return SERVED.model_copy(update={"number": 6, **parts})


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (changed(), set()),
        (changed(settings={NEW: {"factor": 3}}), {f"version:{NEW}"}),
        (changed(settings={NEW: spec(NEW).settings}), set()),
        (changed(standings={"model": {NEW: Standing(state="demoted")}}), {f"version:{NEW}"}),
        (changed(standings={"model": {NEW: Standing(state="suspected")}}), set()),
        (changed(routes=(route(),)), {f"version:{NEW}"}),
        (changed(models={OLD: spec(OLD)}), set()),
        (changed(purges=(CachePurge(number=5, key="model:a"), CachePurge(number=6, key="model:b"))), {"model:b"}),
        (changed(purges=(CachePurge(number=6, key=None),)), {None}),
        (changed(purges=tuple(CachePurge(number=6, key=f"model:{n}") for n in range(PURGES))), {None}),
    ],
)  # fmt: skip
def test_snapshot_ends_what_is_not_true_any_more_and_no_more_than_that(after: Snapshot, words: set[Any]) -> None:
    assert stale(SERVED, after) == words
    assert stale(after, after) == set()


def test_version_that_is_deployed_anew_begins_with_nothing_kept() -> None:
    without = changed(models={OLD: spec(OLD)})
    assert stale(without, SERVED.model_copy(update={"number": 7})) == {f"version:{NEW}"}


# Configuration


def test_headers_that_choose_a_version_are_known_for_vary() -> None:
    rules = [
        {
            "name": "a",
            "match": {"headers": {"X-Tenant": "a"}, "cookies": {"beta": "1"}},
            "split": {"weighted": {NEW: 1}},
        },
        {"name": "b", "match": {"claims": {"plan": "pro"}}, "split": {"weighted": {NEW: 1}}},
    ]
    split = {"weighted": {OLD: 1, NEW: 1}, "sticky": {"header": "X-User"}}
    assert selecting(route(split=split, rules=rules)) == ("x-user", "x-tenant", "cookie", "authorization")


@pytest.mark.parametrize(
    "split",
    [
        {"weighted": {OLD: 1}, "sticky": {"cookie": {"name": "user"}}},
        {"weighted": {OLD: 1}, "sticky": {"client_address": True}},
        {"experiment": "colour"},
    ],
)
def test_public_answers_and_versions_that_stick_to_what_a_cdn_can_not_see_do_not_go_together(split: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="public"):
        parse(RouteSpec, {"model": "model", "split": split, "cache": {"public": True}}, "route")
    assert route(split=split, cache={"public": False}).cache


def test_hit_says_in_what_role_the_version_would_have_answered(serve: Serve) -> None:
    _, gateway = serve(split={"weighted": {OLD: 1}, "sticky": {"cookie": {"name": "user"}}})
    with Wire(gateway) as wire:
        ask(wire)
        hit = ask(wire)
    assert (hit.headers["x-nstarx-cache"], hit.headers["x-nstarx-role"]) == ("hit", "primary")
    assert hit.headers["set-cookie"].startswith("user=")


def test_turn_of_one_that_can_not_go_on_does_not_hold_up_the_others(serve: Serve, wires: Any) -> None:
    plane, gateway = serve()
    clients = wires(gateway, 3)
    model(plane).hangs = True
    together(plane, gateway, clients)

    def spoil() -> None:
        [flight] = gateway.compiler.caches["model"].cache._flights._all
        next(iter(flight.followers)).waiter.connection = None  # type: ignore[assignment]

    in_loop(plane, spoil)
    model(plane).hangs = False
    assert [clients[number].answer().status for number in (0, 2)] == [200, 200]
