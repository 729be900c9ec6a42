"""Snapshots compiled into tables, and weights that change under load."""

from collections import Counter
from collections.abc import Iterable
from functools import partial

import orjson
from hypothesis import given
from hypothesis import strategies as st

from cluster.records import Snapshot
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.split import SplitSpec
from router.gateway import Gateway
from router.table import Compiler, Table, Target
from tests.cluster.samples import replica, spec
from tests.in_process import DataPlaneInProcess
from tests.router.test_failures import load
from tests.router.wire import IRIS, Wire, in_loop, iris, post

OLD, NEW = "iris@1.0.0", "iris@2.0.0"


def route(model: str = "iris", **weighted: float) -> RouteSpec:
    refs = {"old": OLD, "new": NEW}
    return RouteSpec(model=model, split=SplitSpec(weighted={refs[name]: weight for name, weight in weighted.items()}))


def at(table: Table, path: bytes = IRIS.encode()) -> Target:
    target = table.at(path)
    assert target
    return target


def snapshot(*refs: str, routes: tuple[RouteSpec, ...] = ()) -> Snapshot:
    return Snapshot(models={ref: spec(ref) for ref in refs}, routes=routes)


def answering(target: Target) -> list[str]:
    return [arm.backend.ref for arm in target.arms]


def turns_of(target: Target, n: int) -> list[str]:
    return [target.next_arm().backend.ref for _ in range(n)]


def latest(*refs: str) -> str:
    [ref] = answering(at(Compiler().compile(snapshot(*refs))))
    return ref


def test_model_without_a_route_is_answered_by_its_latest_release() -> None:
    assert latest("iris@1.9.0", "iris@1.10.0", "iris@1.2.0") == "iris@1.10.0"


def test_prerelease_answers_only_where_nothing_is_released() -> None:
    assert latest("iris@1.0.0", "iris@2.0.0-rc.1") == "iris@1.0.0"
    assert latest("iris@2.0.0-rc.2", "iris@2.0.0-rc.10") == "iris@2.0.0-rc.10"


@given(st.permutations(["iris@1.0.0", "iris@1.0.1", "iris@1.1.0-rc.1", "iris@0.9.9", "other@3.0.0"]))
def test_latest_release_does_not_depend_on_the_order_of_arrival(refs: list[str]) -> None:
    assert latest(*refs) == "iris@1.0.1"


def test_route_takes_the_place_of_the_latest_release() -> None:
    table = Compiler().compile(snapshot(OLD, NEW, routes=(route(old=1),)))
    assert answering(at(table)) == [OLD]


def test_each_version_has_a_path_of_its_own_past_any_split() -> None:
    table = Compiler().compile(snapshot(OLD, "iris@2.0.0+build.5", routes=(route(old=1),)))
    assert answering(at(table, b"/v2/models/iris/versions/1.0.0/infer")) == [OLD]
    assert answering(at(table, b"/v2/models/iris/versions/2.0.0+build.5/infer")) == ["iris@2.0.0+build.5"]
    [arm] = at(table, b"/v2/models/iris/versions/1.0.0/infer").arms
    assert arm.tally.role == "direct"


def test_route_keeps_its_turn_when_other_things_change() -> None:
    compiler = Compiler()
    first = at(compiler.compile(snapshot(OLD, NEW, routes=(route(old=3, new=1),))))
    begun = turns_of(first, 3)
    changed = snapshot(OLD, NEW, "other@1.0.0", routes=(route(old=3, new=1), route("other", new=1)))
    second = at(compiler.compile(changed.model_copy(update={"replicas": (replica("a", OLD),)})))
    assert second is first
    assert Counter(begun + turns_of(second, 1)) == {OLD: 3, NEW: 1}


def test_route_that_changes_begins_anew_and_goes_on_counting() -> None:
    compiler = Compiler()
    first = at(compiler.compile(snapshot(OLD, NEW, routes=(route(old=1, new=1),))))
    first.arms[0].tally.started = 5
    second = at(compiler.compile(snapshot(OLD, NEW, routes=(route(old=9, new=1),))))
    assert Counter(turns_of(second, 100)) == {OLD: 90, NEW: 10}
    assert second.arms[0].tally.started == 5
    assert second.arms[0].backend is first.arms[0].backend


def test_version_that_leaves_takes_its_path_along() -> None:
    compiler = Compiler()
    compiler.compile(snapshot(OLD, NEW))
    targets = compiler.compile(snapshot(NEW)).targets
    assert sorted(targets) == [IRIS.encode(), b"/v2/models/iris/versions/2.0.0/infer"]


def test_arm_without_weight_does_not_stand_in_for_another() -> None:
    target = at(Compiler().compile(snapshot(OLD, NEW, routes=(route(old=1, new=0),))))
    assert target.live_arm() is None


def test_shares_are_exact_over_the_wire(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    plane.replica("iris@1.1.0")
    weighted = {"iris@1.0.0": 0.9, "iris@1.1.0": 0.1}
    gateway = plane.gateway((RouteSpec(model="iris", split=SplitSpec(weighted=weighted)),))
    with Wire(gateway) as wire:
        answers = [wire.send(post(IRIS, iris())).answer() for _ in range(100)]
    assert Counter(answer.headers["x-nstarx-version"] for answer in answers) == {"iris@1.0.0": 90, "iris@1.1.0": 10}
    assert all(a.headers["x-nstarx-version"].endswith(orjson.loads(a.body)["model_version"]) for a in answers)


def test_weights_change_under_load_without_a_failed_request(plane: DataPlaneInProcess) -> None:
    plane.replica("iris@1.0.0")
    plane.replica("iris@1.1.0")
    gateway = plane.gateway()
    compile = gateway.compiler.compile
    before: dict[str, int] = {}

    def noted(snapshot: Snapshot, blown: Iterable[tuple[str, str]]) -> Table:
        table = compile(snapshot, blown)
        before.update(started(table))
        return table

    def started(table: Table) -> dict[str, int]:
        return {arm.backend.ref: arm.tally.started for arm in at(table).arms}

    def counts() -> dict[str, int]:
        return {ref: n - before[ref] for ref, n in started(gateway.table).items()}

    gateway.compiler.compile = noted  # type: ignore[method-assign, assignment]
    with load(gateway) as clients:
        for share in (0.0, 0.5, 0.75, 1.0):
            weighted = {"iris@1.0.0": 1 - share, "iris@1.1.0": share}
            document = RoutesDocument(routes=(RouteSpec(model="iris", split=SplitSpec(weighted=weighted)),))
            applied = plane.call(plane.coordinator.apply_routes(document))
            plane.until(partial(holds, gateway, applied.number))
            plane.until(lambda: sum(in_loop(plane, counts).values()) >= 50)
            since = in_loop(plane, counts)
            # Each client may have had a request half sent when the weights changed: it keeps the weights it came for.
            assert abs(since["iris@1.1.0"] - sum(since.values()) * share) < 1 + clients.count
    assert clients.all_were_answered()
    assert set(clients.versions[-20:]) == {"iris@1.1.0"}


def holds(gateway: Gateway, number: int) -> bool:
    return gateway.table.snapshot.number == number
