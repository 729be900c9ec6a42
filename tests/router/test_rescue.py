"""A candidate that fails: its clients don't notice, and its traffic ends at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec
from router.deadlines import expire_overdue
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.test_failures import crash
from tests.router.wire import Wire, codes, flaky, in_flight, in_loop, post

STABLE, CANDIDATE = "model@1.0.0", "model@2.0.0"
PATH = "/v2/models/model/infer"
GOOD = "class Model:\n    def infer(self, inputs):\n        return {'y': inputs['x'] * 2}\n"
BAD = "class Model:\n    def infer(self, inputs):\n        raise RuntimeError('bad release')\n"
NAN = "class Model:\n    def infer(self, inputs):\n        return {'y': inputs['x'] * float('nan')}\n"
SLOW = (
    "import threading\nclass Model:\n    def infer(self, inputs):\n        threading.Event().wait(5)\n"
    "        return {'y': inputs['x']}\n"
)
WAITS = (
    "import threading\nclass Model:\n    go = threading.Event()\n    def reconfigure(self, settings):\n"
    "        self.go.set() if settings.get('go') else None\n"
    "    def infer(self, inputs):\n        self.go.wait(5)\n        return {'y': inputs['x']}\n"
)


def let_go(plane: DataPlaneInProcess) -> None:
    """Calls of a candidate that waits end."""
    [replica] = [replica for replica in plane.replicas if str(replica.ref) == CANDIDATE]
    in_loop(plane, lambda: replica.runtime.reconfigure({"go": True}))


@pytest.fixture
def release(tmp_path: Path, write_model: WriteModel) -> Iterator[Any]:
    """Serve a good stable version, and a candidate with the given code; the plane and one gateway."""
    planes: list[DataPlaneInProcess] = []

    def start(
        candidate: str, percent: float = 50, gateways: int = 1, stable: str = GOOD, **parts: Any
    ) -> tuple[Any, list[Gateway]]:
        write_model("model", stable)
        write_model("model", candidate, "2.0.0")
        plane = DataPlaneInProcess(tmp_path)
        planes.append(plane)
        plane.replica(STABLE)
        plane.replica(CANDIDATE)
        canary = {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}
        document = {"model": "model", "split": {"canary": canary}, **parts}
        route = RouteSpec.model_validate(document)
        return plane, [plane.gateway((route,)) for _ in range(gateways)]

    yield start
    for plane in planes:
        plane.close()


def standing(plane: DataPlaneInProcess) -> str:
    snapshot = plane.call(plane.coordinator.snapshot())
    versions = snapshot.standings.get("model", {})
    return versions[CANDIDATE].state if CANDIDATE in versions else "healthy"


def test_candidate_that_fails_everything_costs_no_client_an_answer_and_is_demoted(release: Any) -> None:
    plane, [gateway] = release(BAD)
    with Wire(gateway) as wire:
        answers = [wire.send(post(PATH, flaky(1.0))).answer() for _ in range(60)]
        assert [answer.json["outputs"][0]["data"] for answer in answers] == [[2.0]] * 60
        rescued = [answer for answer in answers if "x-nstarx-rescued" in answer.headers]
        assert rescued
        assert {answer.headers["x-nstarx-rescued"] for answer in rescued} == {CANDIDATE}
        assert {(a.headers["x-nstarx-version"], a.headers["x-nstarx-role"]) for a in rescued} == {(STABLE, "rescue")}
        plane.until(lambda: standing(plane) == "demoted")
        assert codes(gateway, CANDIDATE, "candidate") == {500: len(rescued)}
        assert len(rescued) <= 12  # at 50 % the stable version has to show as many good calls
        plane.settle(gateway)
        assert not gateway.blown
        later = [wire.send(post(PATH, flaky(1.0))).answer() for _ in range(20)]
        assert {answer.headers["x-nstarx-version"] for answer in later} == {STABLE}
    [record] = plane.call(plane.coordinator.snapshot()).demotions
    assert (record.route, record.version, record.outcome) == ("model", CANDIDATE, "demoted")
    assert record.evidence.rule == "consecutive_failures"
    assert set(record.evidence.first_failing) <= {answer.headers["x-request-id"] for answer in rescued}
    assert record.evidence.first_failing
    kinds = [event.kind for event in plane.call(plane.coordinator.events(0))]
    assert "Demoted" in kinds


def test_every_gateway_obeys_what_one_has_found(release: Any) -> None:
    plane, [first, second] = release(BAD, gateways=2)
    with Wire(first) as wire:
        for _ in range(30):
            assert wire.send(post(PATH, flaky(1.0))).answer().status == 200
    plane.until(lambda: standing(plane) == "demoted")
    plane.settle(second)
    with Wire(second) as wire:
        answers = [wire.send(post(PATH, flaky(1.0))).answer() for _ in range(20)]
    assert {answer.headers["x-nstarx-version"] for answer in answers} == {STABLE}


def test_invalid_outputs_count_as_failures_and_are_rescued(release: Any) -> None:
    plane, [gateway] = release(NAN)
    with Wire(gateway) as wire:
        answers = [wire.send(post(PATH, flaky(1.0))).answer() for _ in range(60)]
    assert {answer.json["outputs"][0]["data"][0] for answer in answers} == {2.0}
    plane.until(lambda: standing(plane) == "demoted")


def test_late_answer_of_a_candidate_is_rescued(release: Any) -> None:
    plane, [gateway] = release(SLOW, percent=100)
    with Wire(gateway) as wire:
        wire.send(post(PATH, flaky(1.0)))
        plane.until(lambda: in_flight(gateway) == 1)
        [call] = [call for lane in gateway.all_lanes() for call in lane.waiting.values()]
        assert call.due < call.deadline
        in_loop(plane, lambda: expire_overdue(gateway.all_lanes(), call.due))
        answer = wire.answer()
    assert answer.headers["x-nstarx-rescued"] == CANDIDATE
    assert answer.json["outputs"][0]["data"] == [2.0]
    assert codes(gateway, CANDIDATE, "candidate") == {504: 1}


def test_routes_that_are_not_idempotent_are_not_rescued(release: Any) -> None:
    _, [gateway] = release(BAD, percent=100, idempotent=False)
    with Wire(gateway) as wire:
        answer = wire.send(post(PATH, flaky(1.0))).answer()
    assert (answer.status, "bad release" in answer.error) == (500, True)


def test_rescues_end_with_their_budget(release: Any) -> None:
    _, [gateway] = release(BAD, percent=100, demotion=None, rescue={"budget_percent": 0, "burst": 3})
    with Wire(gateway) as wire:
        statuses = [wire.send(post(PATH, flaky(1.0))).answer().status for _ in range(6)]
    assert statuses == [200] * 3 + [500] * 3


def test_observed_versions_stay_in_traffic(release: Any) -> None:
    plane, [gateway] = release(BAD, demotion={"enforce": False})
    with Wire(gateway) as wire:
        for _ in range(60):
            assert wire.send(post(PATH, flaky(1.0))).answer().status == 200
        plane.until(lambda: bool(plane.call(plane.coordinator.snapshot()).demotions))
    [record] = plane.call(plane.coordinator.snapshot()).demotions
    assert record.outcome == "observed"
    target = gateway.table.at(PATH.encode())
    assert target
    assert [arm.weight for arm in target.arms] == [50, 50]


def test_demoted_version_comes_back_when_a_person_says_so(release: Any) -> None:
    plane, [gateway] = release(BAD)
    with Wire(gateway) as wire:
        for _ in range(60):
            wire.send(post(PATH, flaky(1.0))).answer()
        plane.until(lambda: standing(plane) == "demoted")
        plane.call(plane.coordinator.undo_demotion("model", CANDIDATE))
        plane.settle(gateway)
        answers = [wire.send(post(PATH, flaky(1.0))).answer() for _ in range(10)]
    assert any("x-nstarx-rescued" in answer.headers for answer in answers)
    [record] = plane.call(plane.coordinator.snapshot()).demotions
    assert record.undone is not None


def test_the_only_version_stays_whatever_it_does(tmp_path: Path, write_model: WriteModel) -> None:
    write_model("model", BAD)
    plane = DataPlaneInProcess(tmp_path)
    try:
        plane.replica(STABLE)
        gateway = plane.gateway((RouteSpec(model="model", split=SplitSpec(weighted={STABLE: 1})),))
        with Wire(gateway) as wire:
            assert {wire.send(post(PATH, flaky(1.0))).answer().status for _ in range(30)} == {500}
    finally:
        plane.close()


def test_late_candidate_has_the_rest_of_the_time_when_nobody_may_answer_in_its_place(release: Any) -> None:
    """Its call must not be withdrawn for a rescue that the budget refuses."""
    plane, [gateway] = release(WAITS, percent=100, rescue={"budget_percent": 0, "burst": 1})
    with Wire(gateway) as first, Wire(gateway) as second:
        for wire in (first, second):
            wire.send(post(PATH, flaky(1.0)))
        plane.until(lambda: in_flight(gateway) == 2)
        dues = [call.due for lane in gateway.all_lanes() for call in lane.waiting.values()]
        in_loop(plane, lambda: expire_overdue(gateway.all_lanes(), max(dues)))
        # Of the two, one is rescued; the other one's answer is worth waiting for.
        plane.until(lambda: codes(gateway, STABLE, "rescue") == {200: 1})
        assert codes(gateway, CANDIDATE, "candidate") == {504: 1}
        let_go(plane)
        answers = [wire.answer() for wire in (first, second)]
    assert [answer.status for answer in answers] == [200, 200]
    assert {"x-nstarx-rescued" in answer.headers for answer in answers} == {True, False}


def test_replica_that_dies_is_one_failure_however_many_requests_it_had(release: Any) -> None:
    plane, [gateway] = release(WAITS, percent=100)
    wires = [Wire(gateway) for _ in range(8)]
    for wire in wires:
        wire.send(post(PATH, flaky(1.0)))
    plane.until(lambda: in_flight(gateway) == 8)
    crash(plane, next(replica for replica in plane.replicas if str(replica.ref) == CANDIDATE))
    assert [wire.answer().status for wire in wires] == [200] * 8
    [tally] = [t for t in gateway.compiler.tallies.values() if (t.ref, t.role) == (CANDIDATE, "candidate")]
    assert (tally.lost, len(tally.failing)) == (1, 1)
    assert standing(plane) == "healthy"
    let_go(plane)
    for wire in wires:
        wire.close()


# Whose failure it is

PICKY = (
    "import numpy\nclass Model:\n    def infer(self, inputs):\n        x = inputs['x']\n        if (x < 0).any():\n"
    "            raise RuntimeError('negative')\n        return {'y': numpy.where(x < 1, numpy.float32('nan'), x)}\n"
)
"""Fails at negative numbers, and gives NaN below one."""


def spared(gateway: Gateway) -> tuple[int, int]:
    """Of the candidate's failed calls, those that are not held against it, and those that never will be."""
    [tally] = [t for t in gateway.compiler.tallies.values() if (t.ref, t.role) == (CANDIDATE, "candidate")]
    return sum(tally.spared.values()), tally.excused


@pytest.mark.parametrize(("poison", "status"), [(-1.0, 500), (0.5, 200)])
def test_user_whose_requests_no_version_can_answer_stops_no_release(release: Any, poison: float, status: int) -> None:
    plane, [gateway] = release(PICKY, percent=100, stable=PICKY)
    with Wire(gateway) as wire:
        for _ in range(60):
            assert wire.send(post(PATH, flaky(poison))).answer().status == status
        assert spared(gateway) == (60, 60)
        assert wire.send(post(PATH, flaky(5.0))).answer().headers["x-nstarx-version"] == CANDIDATE
    plane.call(gateway._report(gateway.reading()))
    in_loop(plane, lambda: plane.coordinator.tick(0.0))
    assert standing(plane) == "healthy"
    assert not plane.call(plane.coordinator.snapshot()).demotions


def test_release_that_fails_where_the_stable_version_does_not_is_still_found_among_such_requests(release: Any) -> None:
    plane, [gateway] = release(PICKY, percent=50)
    with Wire(gateway) as wire:
        for _ in range(60):
            assert wire.send(post(PATH, flaky(-1.0))).answer().json["outputs"][0]["data"] == [-2.0]
    plane.until(lambda: standing(plane) == "demoted")
    assert spared(gateway) == (0, 0)


def test_client_that_leaves_before_the_stable_version_has_answered_says_nothing(release: Any) -> None:
    plane, [gateway] = release(BAD, percent=100, stable=WAITS)
    for _ in range(20):
        with Wire(gateway) as wire:
            wire.send(post(PATH, flaky(1.0)))
            plane.until(lambda: spared(gateway)[0] > spared(gateway)[1])
        plane.until(lambda: spared(gateway)[0] == spared(gateway)[1])
    assert spared(gateway) == (20, 20)
    assert standing(plane) == "healthy"
    [replica] = [replica for replica in plane.replicas if str(replica.ref) == STABLE]
    in_loop(plane, lambda: replica.runtime.reconfigure({"go": True}))


def test_stable_version_that_has_no_room_excuses_nobody(release: Any) -> None:
    _, [gateway] = release(BAD, percent=50)
    with Wire(gateway) as wire:
        for _ in range(4):
            assert wire.send(post(PATH, flaky(1.0))).answer().status == 200
        [lane] = [lane for lane in gateway.lanes() if lane.record.ref == STABLE]
        lane.limit = 0
        statuses = {wire.send(post(PATH, flaky(1.0))).answer().status for _ in range(10)}
    assert statuses == {503}
    assert spared(gateway) == (0, 0)
