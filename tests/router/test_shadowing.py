"""A shadow gets copies, is compared with what clients got, and costs them nothing, whatever it does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from cluster.events import EventKind
from judging.comparison import Outcome
from judging.shadow_tally import Drop, ShadowTally
from nstarx.client import Admin
from nstarx.spec.route import RoutesDocument, RouteSpec
from router import shadowing
from router.gateway import Gateway
from router.mirror import Mirror
from router.pressure import Pressure
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.test_failures import NEVER, crash
from tests.router.wire import Answer, Wire, codes, flaky, in_loop, post

PRIMARY, SHADOW, OTHER = "model@1.0.0", "model@2.0.0", "model@3.0.0"
PATH = "/v2/models/model/infer"
DOUBLE = "class Model:\n    def infer(self, inputs):\n        return {'y': inputs['x'] * 2}\n"
WRONG = "class Model:\n    def infer(self, inputs):\n        return {'y': inputs['x'] * 2 + 1}\n"
BROKEN = "class Model:\n    def infer(self, inputs):\n        raise RuntimeError('broken')\n"
HANGING = (
    "import asyncio\nclass Model:\n    async def infer(self, inputs):\n        await asyncio.sleep(3600)\n"
    "        return {'y': inputs['x']}\n"
)
STREAMING = "class Model:\n    def infer(self, inputs):\n        yield {'y': inputs['x'] * 2}\n"


class Calm(Pressure):
    """Other processes of the machine must not decide what a test sees."""

    def look(self, now: int, cpu: int) -> None:
        return


class Stage:
    """A route to a good version, with a shadow."""

    def __init__(self, plane: DataPlaneInProcess, gateways: list[Gateway]) -> None:
        self.plane = plane
        self.gateways = gateways
        self.gateway = gateways[0]

    @property
    def mirror(self) -> Mirror:
        return self.gateway.shadowing.mirrors["model", SHADOW]

    @property
    def tally(self) -> ShadowTally:
        return self.mirror.trial.tally

    def ask(self, count: int, *headers: str, path: str = PATH, gateway: Gateway | None = None) -> list[Answer]:
        with Wire(gateway or self.gateway) as wire:
            return [wire.send(post(path, flaky(1.0, 2.0), *headers)).answer() for _ in range(count)]

    def settled(self) -> ShadowTally:
        """What has been counted when no copy is under way any more."""
        self.noted()
        self.plane.until(lambda: not self.gateway.shadowing.held)
        return self.tally

    def noted(self) -> ShadowTally:
        """What has been counted when every answer has been looked at."""
        for gateway in self.gateways:
            self.plane.until(lambda gateway=gateway: in_loop(self.plane, lambda: not gateway.shadowing._answered))  # type: ignore[misc]
        return self.tally

    def admin(self) -> Admin:
        admin = Admin(f"http://127.0.0.1:{self.gateway.spec.admin_port}")
        self.plane.until(lambda: _listens(admin))
        return admin

    def apply(self, **parts: Any) -> None:
        """Other routes."""
        self.plane.call(self.plane.coordinator.apply_routes(RoutesDocument(routes=(route(**parts),))))
        for gateway in self.gateways:
            self.plane.settle(gateway)


Start = Callable[..., Stage]


def route(shadow: dict[str, Any] | None = None, **parts: Any) -> RouteSpec:
    shadows = [{"version": SHADOW, **(shadow or {})}]
    return RouteSpec.model_validate(
        {"model": "model", "split": {"weighted": {PRIMARY: 1}}, "shadows": shadows, **parts}
    )


@pytest.fixture
def start(tmp_path: Path, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Serve a good version, and a shadow with the given code (None: no replica)."""
    monkeypatch.setattr(shadowing, "LONGEST_TURN_NS", 1 << 40)
    planes: list[DataPlaneInProcess] = []

    def begin(code: str | None, shadow: dict[str, Any] | None = None, gateways: int = 1, **parts: Any) -> Stage:
        primary, other = parts.pop("primary", DOUBLE), parts.pop("other", None)
        plane = DataPlaneInProcess(tmp_path)
        planes.append(plane)
        for ref, source in ((PRIMARY, primary), (SHADOW, code), (OTHER, other)):
            if source:
                write_model("model", source, ref.partition("@")[2])
                plane.replica(ref)
        stage = Stage(plane, [plane.gateway((route(shadow, **parts),)) for _ in range(gateways)])
        for gateway in stage.gateways:
            gateway.shadowing.pressure = Calm()
            gateway.shadowing.budget._share = 1.0
        return stage

    yield begin
    for plane in planes:
        plane.close()


def _listens(admin: Admin) -> bool:
    try:
        return bool(admin.status())
    except Exception:
        return False


def good(answers: list[Answer]) -> bool:
    """Every client has got what the primary says, and nothing tells of a shadow."""
    return all(
        answer.status == 200
        and answer.json["outputs"][0]["data"] == [2.0, 4.0]
        and answer.headers["x-nstarx-version"] == PRIMARY
        for answer in answers
    )


def outcomes(tally: ShadowTally) -> dict[str, int]:
    return {Outcome(name): count for name, count in tally.outcomes.items()}


# What it sees


def test_shadow_that_answers_alike_is_compared_and_found_ready_once(start: Start) -> None:
    lenient = {"min_compared": 20, "max_mismatch_percent": 20, "max_error_percent": 20, "max_latency_ratio": None}
    stage = start(DOUBLE, {"ready": lenient})
    assert good(stage.ask(40))
    tally = stage.settled()
    assert (tally.sampled, tally.dropped, outcomes(tally), tally.mismatched) == (40, 0, {Outcome.compared: 40}, 0)
    assert codes(stage.gateway, PRIMARY) == {200: 40}
    assert codes(stage.gateway, SHADOW, "shadow") == {200: 40}
    with stage.admin() as admin:
        stage.plane.until(lambda: admin.shadow("model", SHADOW)["mismatch"]["of"] == 40)
        [listed] = admin.shadows()
        assert (listed["route"], listed["version"], listed["verdict"]) == ("model", SHADOW, "ready")
        assert (listed["sampled"], listed["compared"], listed["mismatched"], listed["failed"]) == (40, 40, 0, 0)
        for _ in range(3):
            in_loop(stage.plane, lambda: stage.plane.coordinator.tick(0.0))
        events = [event for event in stage.plane.call(stage.plane.coordinator.events(0)) if event.kind == "ShadowReady"]
        assert [(event.route, event.version) for event in events] == [("model", SHADOW)]
        assert "Ready to be a canary" in events[0].sentence
        text = admin.ask("GET", "/metrics").text
    pair = f'gateway="{stage.gateway.id}",route="model",version="{SHADOW}"'
    assert f'nstarx_shadow_pairs_total{{gateway="{stage.gateway.id}",outcome="compared"' in text
    assert f"nstarx_shadow_mismatches_total{{{pair}}} 0.0" in text


def test_differences_are_told_with_the_ids_that_clients_know(start: Start) -> None:
    stage = start(WRONG, {"examples": 3, "keep_payloads": True, "redact": ["x"], "attributes": ["x-tenant"]})
    answers = stage.ask(10, "x-tenant: acme")
    assert good(answers)
    tally = stage.settled()
    assert (outcomes(tally), tally.mismatched) == ({Outcome.compared: 10}, 10)
    with stage.admin() as admin:
        stage.plane.until(lambda: admin.shadow("model", SHADOW)["mismatch"]["of"] == 10)
        report = admin.shadow("model", SHADOW)
    assert (report["route"], report["mismatch"]["count"]) == ("model", 10)
    assert report["outputs"][0]["output"] == "y"
    assert report["outputs"][0]["max_absolute"] == 1.0
    assert {example["id"] for example in report["examples"]} <= {answer.headers["x-request-id"] for answer in answers}
    example = report["examples"][0]
    assert (example["primary_version"], example["rescued"]) == (PRIMARY, False)
    assert example["request"]["x"]["data"] == "(redacted)"
    assert (example["primary"]["y"]["data"], example["shadow"]["y"]["data"]) == ([2.0, 4.0], [3.0, 5.0])
    assert [(part["value"], part["mismatch"]["count"]) for part in report["slices"]] == [("acme", 10)]


def test_binary_and_compressed_answers_are_compared(start: Start) -> None:
    stage = start(WRONG)
    body = orjson.dumps({"inputs": [{"name": "x", "shape": [2000], "datatype": "FP32", "data": [1.0] * 2000}]})
    binary = orjson.loads(body) | {"parameters": {"binary_data_output": True}}
    url = f"http://127.0.0.1:{stage.gateway.spec.port}{PATH}"
    assert httpx.post(url, content=body, headers={"accept-encoding": "gzip"}).headers["content-encoding"] == "gzip"
    assert "inference-header-content-length" in httpx.post(url, json=binary).headers
    tally = stage.settled()
    assert (outcomes(tally), tally.mismatched, tally.outputs["y"].max_absolute) == ({Outcome.compared: 2}, 2, 1.0)


def test_client_that_was_rescued_is_compared_by_what_it_got(start: Start) -> None:
    canary = {"canary": {"stable": PRIMARY, "candidate": OTHER, "percent": 50}}
    stage = start(DOUBLE, split=canary, other=BROKEN, demotion=None)
    answers = stage.ask(20)
    assert good(answers)
    tally = stage.settled()
    assert (outcomes(tally), tally.mismatched) == ({Outcome.compared: 20}, 0)
    assert tally.rescued == sum("x-nstarx-rescued" in answer.headers for answer in answers) == 10


def test_failure_of_the_primary_is_held_against_nobody(start: Start) -> None:
    stage = start(DOUBLE, primary=BROKEN)
    assert {answer.status for answer in stage.ask(5)} == {500}
    assert outcomes(stage.settled()) == {Outcome.primary_failed: 5}


def test_deadline_that_the_primary_missed_is_a_pair_too(start: Start) -> None:
    stage = start(DOUBLE, primary=HANGING)
    assert {answer.status for answer in stage.ask(2, "x-request-timeout-seconds: 0.05")} == {504}
    tally = stage.settled()
    assert (outcomes(tally), tally.primary_statuses) == ({Outcome.primary_failed: 2}, {"504": 2})


# Which requests


def test_share_is_counted_exactly(start: Start) -> None:
    stage = start(DOUBLE, {"percent": 25})
    stage.ask(80)
    assert abs(stage.settled().sampled - 20) <= 1


def test_key_is_copied_always_or_never(start: Start) -> None:
    stage = start(DOUBLE, {"percent": 50, "key": {"header": "x-user"}})
    copied = set()
    for user in range(20):
        before = stage.settled().sampled
        stage.ask(3, f"x-user: user-{user}")
        seen = stage.settled().sampled - before
        assert seen in (0, 3)
        copied |= {user} if seen else set()
    assert 2 <= len(copied) <= 18


def test_version_is_not_compared_with_itself(start: Start) -> None:
    stage = start(DOUBLE, split={"weighted": {PRIMARY: 1, SHADOW: 1}})
    answers = stage.ask(20)
    own = sum(answer.headers["x-nstarx-version"] == SHADOW for answer in answers)
    assert (own, stage.settled().sampled) == (10, 10)


def test_request_for_one_version_is_not_copied(start: Start) -> None:
    stage = start(DOUBLE)
    assert good(stage.ask(3, path="/v2/models/model/versions/1.0.0/infer"))
    assert stage.settled().sampled == 0


def test_stream_is_not_copied(start: Start) -> None:
    stage = start(DOUBLE, primary=STREAMING)
    with Wire(stage.gateway) as wire:
        answer = wire.send(post(PATH, flaky(1.0), "accept: text/event-stream")).answer()
    assert answer.headers["content-type"] == "text/event-stream"
    assert stage.settled().sampled == 0


# What it may do


def test_shadow_that_fails_reaches_no_client(start: Start) -> None:
    stage = start(BROKEN, {"examples": 2})
    answers = stage.ask(10)
    assert good(answers)
    tally = stage.settled()
    assert (outcomes(tally), tally.shadow_statuses) == ({Outcome.shadow_failed: 10}, {"500": 10})
    assert [kept["id"] for kept in tally.failures] == [answer.headers["x-request-id"] for answer in answers[:2]]


def test_shadow_that_hangs_costs_its_slots_alone_and_gives_them_back_at_its_deadline(start: Start) -> None:
    stage = start(HANGING, {"max_in_flight": 4, "timeout_s": 60})
    assert good(stage.ask(20))
    tally = stage.noted()
    assert (tally.sampled, tally.drops, stage.mirror.in_flight) == (20, {Drop.in_flight: 16}, 4)
    in_loop(stage.plane, lambda: stage.gateway.shadowing.sweep(NEVER))
    tally = stage.settled()
    assert (outcomes(tally), tally.shadow_statuses) == ({Outcome.shadow_failed: 4}, {"504": 4})
    assert (stage.gateway.shadowing.held, stage.gateway.lanes()[1].waiting) == (0, {})
    replica = next(replica for replica in stage.plane.replicas if str(replica.ref) == SHADOW)
    stage.plane.until(lambda: replica.batcher.counters.cancelled == 4)
    assert good(stage.ask(1))
    stage.noted()
    assert stage.mirror.in_flight == 1


def test_shadow_has_the_time_of_the_request_where_it_has_none_of_its_own(start: Start) -> None:
    stage = start(HANGING, timeout_s=0.05)
    assert good(stage.ask(1))
    assert stage.settled().shadow_statuses == {"504": 1}


def test_shadow_whose_replica_dies_reaches_no_client(start: Start) -> None:
    stage = start(HANGING)
    assert good(stage.ask(3))
    stage.noted()
    crash(stage.plane, next(replica for replica in stage.plane.replicas if str(replica.ref) == SHADOW))
    tally = stage.settled()
    assert (outcomes(tally), tally.shadow_statuses) == ({Outcome.shadow_failed: 3}, {"502": 3})
    stage.plane.until(lambda: not stage.mirror.backend.lanes)
    assert good(stage.ask(3))
    assert stage.settled().drops == {Drop.no_replica: 3}


def test_shadow_without_a_replica_is_said_to_have_none(start: Start) -> None:
    stage = start(None)
    assert good(stage.ask(2))
    assert stage.settled().drops == {Drop.no_replica: 2}
    applied = stage.plane.call(stage.plane.coordinator.apply_routes(RoutesDocument(routes=(route(),)), dry_run=True))
    assert any(f"shadows {SHADOW}" in warning for warning in applied.warnings)


# What it may take


def test_gateway_with_much_to_do_copies_nothing(start: Start) -> None:
    stage = start(DOUBLE)
    stage.gateway.shadowing.pressure.busy = True
    assert good(stage.ask(3))
    assert stage.settled().drops == {Drop.busy: 3}


def test_turn_of_the_loop_that_took_long_copies_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = start(DOUBLE)
    monkeypatch.setattr(shadowing, "LONGEST_TURN_NS", -1)
    assert good(stage.ask(3))
    assert stage.settled().drops == {Drop.busy: 3}


def test_primary_with_a_queue_is_left_alone(start: Start) -> None:
    stage = start(DOUBLE)
    lane = next(lane for lane in stage.gateway.lanes() if lane.record.ref == PRIMARY)
    lane.limit = -1
    stage.gateway.compiler.backend(PRIMARY).usual.balancer.pick = lambda: lane
    assert good(stage.ask(2))
    assert stage.settled().drops == {Drop.busy: 2}


def test_half_of_the_shadows_room_is_for_those_who_wait(start: Start) -> None:
    stage = start(HANGING, {"max_in_flight": 100})
    lane = next(lane for lane in stage.gateway.lanes() if lane.record.ref == SHADOW)
    lane.limit = 10
    assert good(stage.ask(8))
    stage.plane.until(lambda: stage.tally.drops == {Drop.full: 3})
    assert (len(lane.waiting), lane.full) == (5, False)


def test_copies_hold_no_more_than_they_may(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = start(HANGING)
    assert good(stage.ask(1))
    stage.noted()
    monkeypatch.setattr(shadowing, "MOST_HELD", stage.gateway.shadowing.held)
    assert good(stage.ask(2))
    assert stage.noted().drops == {Drop.memory: 2}


def test_pairs_beyond_the_budget_are_counted_and_not_compared(start: Start) -> None:
    stage = start(WRONG)
    in_loop(stage.plane, lambda: stage.gateway.shadowing.budget.spend(1 << 60))
    assert good(stage.ask(5))
    tally = stage.settled()
    assert (outcomes(tally), tally.mismatched, sum(tally.shadow_latency)) == ({Outcome.answered: 5}, 0, 5)


# Trials


def test_reset_begins_anew_in_all_gateways(start: Start) -> None:
    stage = start(WRONG, gateways=2)
    for gateway in stage.gateways:
        assert good(stage.ask(5, gateway=gateway))
    with stage.admin() as admin:
        stage.plane.until(lambda: admin.shadow("model", SHADOW)["mismatch"]["of"] == 10)
        admin.reset_shadow("model", SHADOW)
        assert admin.shadow("model", SHADOW)["sampled"] == 0
        for gateway in stage.gateways:
            stage.plane.settle(gateway)
            assert gateway.shadowing.mirrors["model", SHADOW].trial.tally.sampled == 0
        assert good(stage.ask(3))
        stage.plane.until(lambda: admin.shadow("model", SHADOW)["mismatch"]["of"] == 3)
    kinds = [event.kind for event in stage.plane.call(stage.plane.coordinator.events(0))]
    assert kinds.count(EventKind.SHADOW_RESET) == 1


def test_counts_stay_while_they_mean_the_same(start: Start) -> None:
    stage = start(WRONG)
    stage.ask(4)
    assert stage.settled().mismatched == 4
    stage.apply(shadow={"percent": 50, "max_in_flight": 2, "ready": {"min_compared": 5}})
    assert stage.tally.mismatched == 4
    assert stage.mirror.trial.spec.max_in_flight == 2
    stage.apply(shadow={"tolerance": {"max_absolute": 5}})
    assert stage.tally.sampled == 0
    stage.ask(4)
    assert (outcomes(stage.settled()), stage.tally.mismatched) == ({Outcome.compared: 4}, 0)


def test_copy_under_way_counts_for_the_trial_it_belongs_to(start: Start) -> None:
    stage = start(HANGING, {"attributes": ["x-tenant"]})
    stage.ask(2)
    stage.noted()
    stage.apply(shadow={"attributes": []})
    stage.apply(shadow=None, shadows=[])
    in_loop(stage.plane, lambda: stage.gateway.shadowing.sweep(NEVER))
    stage.plane.until(lambda: not stage.gateway.shadowing.held)
    assert not stage.gateway.shadowing.mirrors
    assert codes(stage.gateway, SHADOW, "shadow") == {504: 2}


def test_what_a_gateway_counted_stays_when_it_leaves(start: Start) -> None:
    stage = start(DOUBLE, gateways=2)
    for gateway in stage.gateways:
        assert good(stage.ask(5, gateway=gateway))
    stage.settled()
    stage.plane.until(lambda: not stage.gateways[1].shadowing.held)
    stage.plane.call(stage.gateways[1].stop())
    with stage.admin() as admin:
        stage.plane.until(lambda: admin.shadow("model", SHADOW)["mismatch"]["of"] == 10)


def test_shadow_that_nobody_has_is_said_so(start: Start) -> None:
    stage = start(DOUBLE)
    with stage.admin() as admin:
        for path in (f"/shadows/model/{PRIMARY}", f"/shadows/other/{SHADOW}"):
            answer = httpx.get(f"{admin.url}{path}")
            assert (answer.status_code, "nstarx shadow list" in answer.json()["error"]) == (404, True)


def test_pairs_that_pile_up_are_settled_all_the_same(start: Start) -> None:
    stage = start(DOUBLE, {"max_in_flight": 1000, "timeout_s": 60})
    lane = next(lane for lane in stage.gateway.lanes() if lane.record.ref == SHADOW)
    sent: list[Any] = []

    def keep(call: Any, place: bytes = b"") -> int:
        sent.append(call)
        return len(sent)

    lane.send = keep  # type: ignore[method-assign]
    assert good(stage.ask(200))
    stage.plane.until(lambda: len(sent) == 200)
    in_loop(stage.plane, lambda: [copy.on_response(200, 0, 0xFFFFFFFF, copy.primary.body) for copy in sent])
    tally = stage.settled()
    assert (outcomes(tally), stage.mirror.in_flight) == ({Outcome.compared: 200}, 0)
