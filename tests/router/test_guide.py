"""Routes that look at more than a model's name: host, prefix, rules, keys."""

from collections import Counter
from typing import Any

import pytest

from cluster.records import Snapshot
from judging.experiment import assignment_of
from nstarx.errors import InvalidConfiguration
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument, RouteSpec
from router.facts import Facts
from router.gateway import Gateway
from router.table import Compiler, Target
from tests.cluster.samples import spec
from tests.in_process import DataPlaneInProcess
from tests.router.wire import IRIS, Wire, iris, post

OLD, NEW = "iris@1.0.0", "iris@1.1.0"


def routes(*documents: dict[str, Any]) -> tuple[RouteSpec, ...]:
    return parse(RoutesDocument, {"routes": [{"model": "iris", **document} for document in documents]}, "routes").routes


def only(ref: str) -> dict[str, Any]:
    return {"weighted": {ref: 1}}


def canary(percent: float, **parts: Any) -> dict[str, Any]:
    return {"canary": {"stable": OLD, "candidate": NEW, "percent": percent}, **parts}


def target(*documents: dict[str, Any], host: bytes = b"", path: str = IRIS) -> Target | None:
    models = {ref: spec(ref) for ref in (OLD, NEW)}
    return Compiler().compile(Snapshot(models=models, routes=routes(*documents))).at(path.encode(), host)


def answering(found: Target | None) -> set[str]:
    return {arm.ref for arm in found.arms if arm.weight} if found else set()


def test_hosts_tell_routes_of_one_model_apart() -> None:
    documents = {"hosts": ["a.example"], "split": only(OLD)}, {"split": only(NEW)}
    assert answering(target(*documents, host=b"A.example")) == {OLD}
    assert answering(target(*documents, host=b"b.example")) == {NEW}


def test_route_for_a_host_alone_leaves_other_hosts_the_latest_release() -> None:
    assert answering(target({"hosts": ["a.example"], "split": only(OLD)}, host=b"b.example")) == {NEW}


def test_prefix_stands_before_the_protocols_own_path() -> None:
    document = {"path_prefix": "/team-a", "split": only(OLD)}
    assert answering(target(document, path=f"/team-a{IRIS}")) == {OLD}
    assert answering(target(document)) == {NEW}
    assert answering(target(document, path=f"/team-b{IRIS}")) == set()


def test_version_in_the_path_can_be_forbidden() -> None:
    path = "/v2/models/iris/versions/1.1.0/infer"
    assert answering(target({"split": only(OLD)}, path=path)) == {NEW}
    assert answering(target({"split": only(OLD), "direct": False}, path=path)) == set()


def test_live_side_answers_everything_and_the_other_stays_warm() -> None:
    sides = {"blue": OLD, "green": NEW}
    assert answering(target({"split": {"blue_green": sides}})) == {OLD}
    found = target({"split": {"blue_green": {**sides, "live": "green"}}})
    assert answering(found) == {NEW}
    assert found
    assert {arm.ref for arm in found.arms} == {OLD, NEW}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"split": {}}, "exactly one of weighted, canary, blue_green"),
        ({"split": {**canary(1), **only(OLD)}}, "given: weighted, canary"),
        ({"split": canary(101)}, "percent"),
        ({"split": {"canary": {"stable": OLD, "candidate": OLD, "percent": 1}}}, "another version than stable"),
        ({"split": only(OLD), "hosts": ["a b"]}, "is not a host"),
        ({"split": only(OLD), "path_prefix": "a"}, "is not a path prefix"),
        ({"split": only(OLD), "path_prefix": "/a/"}, "is not a path prefix"),
        ({"split": only(OLD), "fallback": {}}, "exactly one of version, static"),
        ({"split": only(OLD), "rules": [{"name": "r", "match": {}, "split": only(NEW)}] * 2}, "more than one rule"),
        ({"split": only(OLD), "sticky": {"header": "x"}}, "sticky: unknown key"),
    ],
)
def test_wrong_routes_are_refused_with_the_field(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        routes(document)


def test_two_routes_for_one_address_are_refused() -> None:
    with pytest.raises(InvalidConfiguration, match=r"a\.example/iris has more than one route"):
        routes({"hosts": ["a.example", "b.example"], "split": only(OLD)}, {"hosts": ["A.example"], "split": only(NEW)})


BETA = {"name": "beta", "match": {"headers": {"x-plan": "beta"}}, "split": only(NEW)}
STAFF = {"name": "staff", "match": {"headers": {"x-plan": {"present": True}}}, "split": only(OLD)}


def decided(found: Target | None, **headers: str) -> tuple[str, str | None]:
    assert found
    facts = Facts({name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}, IRIS.encode())
    decision = found.guide.decide(facts)
    return decision.arm.ref, decision.rule


def test_first_rule_that_matches_decides() -> None:
    found = target({"split": only(OLD), "rules": [BETA, STAFF]})
    assert decided(found, x_plan="beta") == (NEW, "beta")
    assert decided(found, x_plan="gold") == (OLD, "staff")
    assert decided(found) == (OLD, None)


def test_rule_that_is_switched_off_decides_nothing() -> None:
    found = target({"split": only(OLD), "rules": [{**BETA, "enabled": False}, STAFF]})
    assert decided(found, x_plan="beta") == (OLD, "staff")


def test_raising_a_sticky_canary_adds_users_and_moves_nobody_back() -> None:
    at = {p: target({"split": canary(p, sticky={"header": "x-user"})}) for p in (10, 20)}
    users = [f"user-{number}" for number in range(3000)]
    chosen = {p: {u for u in users if decided(found, x_user=u)[0] == NEW} for p, found in at.items()}
    assert chosen[10] < chosen[20]
    assert 200 < len(chosen[10]) < 400
    assert 480 < len(chosen[20]) < 720


def test_requests_without_a_key_are_counted_out() -> None:
    found = target({"split": canary(10, sticky={"header": "x-user"})})
    assert Counter(decided(found)[0] for _ in range(1000)) == {OLD: 900, NEW: 100}


@pytest.fixture
def guided(plane: DataPlaneInProcess) -> Gateway:
    plane.replica(OLD)
    plane.replica(NEW)
    cookie = {"cookie": {"name": "arm", "max_age_s": 60}}
    return plane.gateway(routes({"split": canary(50, sticky=cookie), "rules": [BETA]}))


def test_client_without_a_cookie_gets_one_and_stays_with_its_version(guided: Gateway) -> None:
    with Wire(guided) as wire:
        first = wire.send(post(IRIS, iris())).answer()
        cookie = first.headers["set-cookie"]
        assert "Max-Age=60" in cookie
        again = [wire.send(post(IRIS, iris(), f"Cookie: {cookie.partition(';')[0]}")).answer() for _ in range(10)]
    assert {answer.headers["x-nstarx-version"] for answer in again} == {first.headers["x-nstarx-version"]}
    assert not any("set-cookie" in answer.headers for answer in again)


def test_answers_name_the_rule_that_decided(guided: Gateway) -> None:
    with Wire(guided) as wire:
        for _ in range(3):
            answer = wire.send(post(IRIS, iris(), "X-Plan: beta")).answer()
            assert (answer.headers["x-nstarx-rule"], answer.headers["x-nstarx-version"]) == ("beta", NEW)
        assert "x-nstarx-rule" not in wire.send(post(IRIS, iris())).answer().headers


def test_request_id_is_echoed_or_made(guided: Gateway) -> None:
    with Wire(guided) as wire:
        assert wire.send(post(IRIS, iris(), "X-Request-Id: abc-1")).answer().headers["x-request-id"] == "abc-1"
        made = [wire.send(post(IRIS, iris())).answer().headers["x-request-id"] for _ in range(3)]
        assert len(set(made)) == 3
        too_long = wire.send(post(IRIS, iris(), f"X-Request-Id: {'x' * 200}")).answer().headers["x-request-id"]
        assert len(too_long) < 100


def test_answers_of_sticky_routes_name_whose_they_are_and_not_the_key(guided: Gateway) -> None:
    body = post(IRIS, iris())
    with Wire(guided) as wire:
        first = wire.send(body).answer()
        cookie = first.headers["set-cookie"].partition(";")[0]
        again = wire.send(post(IRIS, iris(), f"Cookie: {cookie}")).answer()
        other = wire.send(body).answer()
    id = first.headers["x-nstarx-assignment"]
    assert id == assignment_of("iris", cookie.partition("=")[2])
    assert again.headers["x-nstarx-assignment"] == id != other.headers["x-nstarx-assignment"]


def test_answers_of_routes_that_count_requests_out_name_nobody() -> None:
    found = target({"split": canary(50, sticky={"header": "x-user"})})
    assert found
    assert found.guide.decide(Facts({}, IRIS.encode())).lines == b""
    assert found.guide.decide(Facts({b"x-user": b"ada"}, IRIS.encode())).lines.startswith(b"x-nstarx-assignment: ")
