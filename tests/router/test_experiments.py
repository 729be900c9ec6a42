"""Experiments over real sockets: from a start to a winner, and through everything that happens on the way."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cluster.coordination import CoordinatorUnavailable
from cluster.events import EventKind
from nstarx.cli.app import app
from nstarx.client import Admin, Inference
from nstarx.spec.record import parse
from nstarx.spec.route import RoutesDocument
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel

OLD, NEW = "iris@1.0.0", "iris@1.1.0"
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}


def document(old: str = OLD, new: str = NEW, **parts: Any) -> RoutesDocument:
    model = old.partition("@")[0]
    experiment = {
        "name": "label",
        "arms": {old: 1, new: 1},
        "control": old,
        "key": {"header": "x-user"},
        "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
        **parts,
    }
    routes = [{"model": model, "split": {"experiment": "label"}}]
    return parse(RoutesDocument, {"routes": routes, "experiments": [experiment]}, "test")


class Lab:
    """A data plane with an experiment, and clients of its gateways."""

    def __init__(
        self, plane: DataPlaneInProcess, gateways: int = 1, old: str = OLD, new: str = NEW, **parts: Any
    ) -> None:
        self.plane = plane
        self.ahead = 0.0
        routes = document(old, new, **parts)
        self.model = routes.routes[0].model
        for ref in (old, new):
            plane.replica(ref)
        self.gateways = [plane.gateway(routes.routes, routes.experiments) for _ in range(gateways)]
        self.clients = [httpx.Client(base_url=f"http://127.0.0.1:{g.spec.port}") for g in self.gateways]
        self.admin = Admin(f"http://127.0.0.1:{self.gateways[0].spec.admin_port}")
        plane.until(lambda: any(len(gateway._servers) > 1 for gateway in self.gateways))

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.admin.__exit__()

    def start(self) -> None:
        self.admin.start_experiment("label")
        self.settle()

    def settle(self) -> None:
        for gateway in self.gateways:
            self.plane.settle(gateway)

    def ask(self, user: str, gateway: int = 0, body: Any = BODY) -> httpx.Response:
        return self.clients[gateway].post(f"/v2/models/{self.model}/infer", json=body, headers={"x-user": user})

    def report(self, outcomes: Any, gateway: int = 0, name: str = "label") -> httpx.Response:
        return self.clients[gateway].post(f"/v2/experiments/{name}/outcomes", json=outcomes)

    def hand_in(self) -> None:
        for gateway in self.gateways:
            self.plane.call(gateway._hand_in())

    def tick(self, seconds: float = 2.0) -> None:
        """The coordinator's next look, so much later."""
        self.ahead += seconds
        self.plane.coordinator._wall = lambda: time.time() + self.ahead
        self.plane.tick()

    def status(self) -> dict[str, Any]:
        return self.admin.experiment("label")

    def events(self, *kinds: EventKind) -> list[str]:
        found = self.plane.call(self.plane.coordinator.events(0))
        return [event.sentence for event in found if event.kind in kinds]

    def run(self, *words: str) -> str:
        result = CliRunner().invoke(app, ["experiments", *words, "--admin-url", self.admin.url])
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def lab(plane: DataPlaneInProcess) -> Iterator[Lab]:
    lab = Lab(plane, holdout_percent=10)
    yield lab
    lab.close()


@pytest.fixture
def two(plane: DataPlaneInProcess) -> Iterator[Lab]:
    lab = Lab(plane, gateways=2)
    yield lab
    lab.close()


def test_an_experiment_from_start_to_a_winner_over_two_gateways(two: Lab) -> None:
    before = two.ask("user-0")
    assert (before.headers["x-nstarx-version"], before.headers["x-nstarx-role"]) == (OLD, "control")
    assert "x-nstarx-assignment" not in before.headers
    assert two.run("list").splitlines()[1].split()[:3] == ["label", "idle", "iris"]
    two.run("start", "label")
    two.settle()
    arm_of: dict[str, str] = {}
    for number in range(240):
        user, gateway = f"user-{number}", number % 2
        answer = two.ask(user, gateway)
        arm_of[user] = answer.headers["x-nstarx-arm"]
        assert answer.headers["x-nstarx-version"] == arm_of[user]
        assert answer.headers["x-nstarx-role"] == ("control" if arm_of[user] == OLD else "arm")
        assert answer.headers["x-nstarx-experiment"] == "label"
        content = number % 10 < (3 if arm_of[user] == OLD else 9)
        outcome = {"assignment": answer.headers["x-nstarx-assignment"], "metric": "accepted", "value": int(content)}
        assert two.report(outcome, 1 - gateway).status_code == 200
    assert [two.ask(user, 1).headers["x-nstarx-arm"] for user in arm_of] == list(arm_of.values())
    two.hand_in()
    two.tick()
    [sentence] = two.events(EventKind.EXPERIMENT_DECIDED)
    assert sentence.startswith(f"experiment 'label' is decided: '{NEW}' wins")
    status = two.status()
    assert (status["assigned"], status["outcomes"], status["waiting"]) == (240, 240, 0)
    assert {mean["arm"]: mean["assigned"] for mean in status["result"]["means"]} == Counter(arm_of.values())
    assert f"'{NEW}' wins: accepted is" in two.run("result", "label")
    assert "better" in two.run("result", "label")
    assert "50 %" in two.run("show", "label")
    assert "is stopped" in two.run("stop", "label")
    two.settle()
    assert {two.ask(user).headers["x-nstarx-version"] for user in arm_of} == {OLD}
    assert len(two.events(EventKind.EXPERIMENT_STARTED)) == len(two.events(EventKind.EXPERIMENT_STOPPED)) == 1
    scraped = httpx.get(f"{two.admin.url}/metrics").text
    assert 'nstarx_experiment_outcomes_total{experiment="label",gateway="gateway-0",recording="waiting"}' in scraped


def test_assignments_reach_the_coordinator_within_seconds_and_waiting_outcomes_count_then(lab: Lab) -> None:
    lab.start()
    answer = next(a for a in (lab.ask(f"user-{n}") for n in range(50)) if "x-nstarx-assignment" in a.headers)
    outcome = {"assignment": answer.headers["x-nstarx-assignment"], "metric": "accepted", "value": 1}
    words = {lab.report(outcome).json()["outcomes"][0] for _ in range(3)}
    assert words <= {"waiting", "duplicate", "counted"}
    lab.plane.until(lambda: lab.status()["outcomes"] == 1)
    assert lab.report(outcome).json() == {"outcomes": ["duplicate"]}
    assert (lab.status()["outcomes"], lab.status()["waiting"]) == (1, 0)


def test_held_out_users_are_answered_and_not_counted(lab: Lab) -> None:
    idle = lab.admin.explain({"model": "iris", "headers": {"x-user": "user-1"}})
    assert idle["sentence"] == f"The route's split decides. Experiment 'label' is not running. {OLD} answers."
    lab.start()
    answers = [lab.ask(f"user-{number}") for number in range(200)]
    out = [answer for answer in answers if "x-nstarx-assignment" not in answer.headers]
    assert 5 < len(out) < 40
    assert {answer.headers["x-nstarx-version"] for answer in out} == {OLD}
    lab.hand_in()
    assert lab.status()["assigned"] == 200 - len(out)
    user = next(f"user-{place}" for place, answer in enumerate(answers) if answer in out)
    explained = lab.admin.explain({"model": "iris", "headers": {"x-user": user}})["sentence"]
    assert "is running, and this caller is kept out of it. By header 'x-user' this caller gets iris@1.0.0" in explained
    assert "is missing: the control answers, and is not counted." in lab.admin.explain({"model": "iris"})["sentence"]
    lab.hand_in()
    assert lab.status()["assigned"] == 200 - len(out)


def test_callers_report_by_key_one_or_many_at_once(lab: Lab) -> None:
    lab.start()
    users = [f"user-{n}" for n in range(20) if "x-nstarx-assignment" in lab.ask(f"user-{n}").headers]
    lab.hand_in()
    outcomes = [{"key": user, "metric": "accepted", "value": 1, "event": "first"} for user in users]
    assert lab.report(outcomes).json() == {"outcomes": ["counted"] * len(users)}
    with Inference(str(lab.clients[0].base_url)) as client:
        assert client.report_outcomes("label", outcomes[:1]) == ["duplicate"]
    assert lab.report({**outcomes[0], "event": "second"}).json() == {"outcomes": ["counted"]}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "outcomes.0.metric: is required; outcomes.0.value: is required"),
        ({"metric": "accepted", "value": 1}, "outcomes.0: give either the assignment id or the key"),
        ({"key": "u", "assignment": "a", "metric": "accepted", "value": 1}, "give either the assignment id or the key"),
        ({"key": "u", "metric": "accepted", "value": "1"}, "outcomes.0.value: Input should be a valid number"),
        (
            {"key": "u", "metric": "accepted", "value": 2},
            "outcomes.0: metric 'accepted' is binary; report 0 or 1, not 2",
        ),
        (
            {"key": "u", "metric": "clicks", "value": 1},
            "outcomes.0: 'label' measures no 'clicks'; it measures accepted",
        ),
        ({"key": "u", "metric": "accepted", "value": 1, "arm": "x"}, "outcomes.0.arm: unknown key"),
        ({"key": "u", "metric": "accepted", "value": True}, "outcomes.0.value"),
        ({"key": "u" * 1025, "metric": "accepted", "value": 1}, "outcomes.0.key"),
        ([{"key": "u", "metric": "accepted", "value": 1}, 7], "outcomes.1"),
        ([], "send 1 to 1000 outcomes at once, not 0"),
        ([{"key": "u", "metric": "accepted", "value": 1}] * 1001, "not 1001"),
        ("u", "outcomes.0"),
    ],
)
def test_what_is_no_outcome_is_refused_by_its_field_and_none_counts(lab: Lab, body: Any, sentence: str) -> None:
    lab.start()
    refused = lab.report(body)
    assert refused.status_code == 400
    assert sentence in refused.json()["error"]
    assert (lab.status()["outcomes"], lab.status()["waiting"]) == (0, 0)


def test_what_there_is_not_is_said(lab: Lab) -> None:
    outcome = {"key": "u", "metric": "accepted", "value": 1}
    early = lab.report(outcome)
    assert (early.status_code, early.json()) == (
        409,
        {"error": "experiment 'label' has never been started, so nothing was assigned"},
    )
    unknown = lab.report(outcome, name="colour")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "there is no experiment 'colour'; there are: label")
    assert lab.clients[0].get("/v2/experiments/label/outcomes").status_code == 405
    nonsense = lab.clients[0].post("/v2/experiments/label/outcomes", content=b"{")
    assert (nonsense.status_code, "not valid JSON" in nonsense.json()["error"]) == (400, True)
    for path, status in (("label/stop", 409), ("colour/start", 404), ("colour/stop", 404)):
        assert httpx.post(f"{lab.admin.url}/experiments/{path}").status_code == status
    assert httpx.get(f"{lab.admin.url}/experiments/colour").status_code == 404


def test_assignments_that_were_not_confirmed_are_handed_in_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.start()
    gateway = lab.gateways[0]
    hand_in = lab.plane.coordinator.hand_in
    calls: list[int] = []

    async def unsure(id: str, number: int, exposed: Any) -> None:
        """The coordinator takes them, and dies before it can say so."""
        calls.append(number)
        await hand_in(id, number, exposed)
        if len(calls) < 3:
            raise CoordinatorUnavailable("ActorDiedError")

    monkeypatch.setattr(lab.plane.coordinator, "hand_in", unsure)
    for number in range(50):
        lab.ask(f"user-{number}")
    for _ in range(4):
        lab.plane.call(gateway._hand_in())
    assert calls[0] == calls[1] == calls[2]
    requests = sum(gateway.exposures.requests["label"].values())
    assert lab.status()["assigned"] == requests


def test_a_gateway_that_stops_hands_in_what_it_has(two: Lab) -> None:
    two.start()
    for number in range(30):
        two.ask(f"user-{number}", 1)
    two.plane.call(two.gateways[1].stop())
    assert two.status()["assigned"] == 30


def test_everything_at_once_restarts_and_the_experiment_goes_on(tmp_path: Path) -> None:
    arms, outcome = [], {"metric": "accepted", "value": 1}
    for life in range(2):
        plane = DataPlaneInProcess(state_dir=tmp_path / "state")
        try:
            lab = Lab(plane)
            if not life:
                lab.start()
            arms.append([lab.ask(f"user-{number}").headers["x-nstarx-arm"] for number in range(40)])
            lab.hand_in()
            said = lab.report([{**outcome, "key": f"user-{number}"} for number in range(20 + 20 * life)]).json()
            assert said["outcomes"] == ["duplicate"] * 20 * life + ["counted"] * 20
            status = lab.status()
            assert (status["state"], status["assigned"], status["outcomes"]) == ("running", 40, 20 + 20 * life)
            lab.close()
        finally:
            plane.close()
    assert arms[0] == arms[1]


def test_a_bandit_moves_traffic_in_every_gateway(plane: DataPlaneInProcess) -> None:
    lab = Lab(plane, gateways=2, bandit={"enabled": True, "floor_percent": 10})
    lab.start()
    for number in range(100):
        answer = lab.ask(f"user-{number}", number % 2)
        outcome = {"key": f"user-{number}", "metric": "accepted", "value": int(answer.headers["x-nstarx-arm"] == NEW)}
        lab.report(outcome)
    lab.hand_in()
    lab.tick(61)
    assert lab.status()["shares"] == {OLD: 0.1, NEW: 0.9}
    assert lab.events(EventKind.WEIGHTS_CHANGED) == [f"experiment 'label' moves weight: {OLD} 10 %, {NEW} 90 %"]
    lab.settle()
    arms = Counter(lab.ask(f"new-{number}", number % 2).headers["x-nstarx-arm"] for number in range(300))
    assert 0.8 < arms[NEW] / 300 < 0.97
    lab.hand_in()
    assert lab.status()["result"]["valid"]
    lab.close()


def test_a_split_that_loses_an_arms_assignments_is_found_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something between gateway and coordinator drops most of an arm: no verdict may be trusted."""
    lab.start()
    exposures = lab.gateways[0].exposures
    add = exposures.add
    monkeypatch.setattr(exposures, "add", lambda assignment: None if _is_lost(assignment) else add(assignment))
    for number in range(700):
        lab.ask(f"user-{number}")
    lab.hand_in()
    lab.tick()
    [sentence] = lab.events(EventKind.EXPERIMENT_SKEWED)
    assert f"'{OLD}' got" in sentence or f"'{NEW}' got" in sentence
    assert "not valid: the split is broken" in lab.run("result", "label")
    assert "not valid" in lab.run("list")


def _is_lost(assignment: Any) -> bool:
    return assignment.arm == NEW and assignment.id[0] in "0123456789ab"


GOOD = "class Model:\n    def infer(self, inputs):\n        return {'y': inputs['x'] * 2}\n"
BAD = "class Model:\n    def infer(self, inputs):\n        raise RuntimeError('bad arm')\n"


def test_an_arm_that_fails_is_rescued_and_demoted_and_its_callers_go_on_counting_for_it(
    tmp_path: Path, write_model: WriteModel
) -> None:
    write_model("model", GOOD)
    write_model("model", BAD, "2.0.0")
    plane = DataPlaneInProcess(tmp_path)
    try:
        lab = Lab(plane, old="model@1.0.0", new="model@2.0.0")
        lab.start()
        body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
        answers = [lab.ask(f"user-{number}", body=body) for number in range(200)]
        assert {answer.status_code for answer in answers} == {200}
        rescued = [answer for answer in answers if "x-nstarx-rescued" in answer.headers]
        assert rescued
        for answer in rescued:
            assert answer.headers["x-nstarx-arm"] == answer.headers["x-nstarx-rescued"] == "model@2.0.0"
            assert (answer.headers["x-nstarx-version"], answer.headers["x-nstarx-role"]) == ("model@1.0.0", "rescue")
        plane.until(lambda: _standing(plane) == "demoted")
        plane.settle(lab.gateways[0])
        later = [lab.ask(f"user-{number}", body=body) for number in range(200, 260)]
        assert {answer.headers["x-nstarx-arm"] for answer in later} == {"model@1.0.0"}
        lab.hand_in()
        status = lab.status()
        assert status["assigned"] == 260
        assert status["result"]["valid"]
        lab.close()
    finally:
        plane.close()


def _standing(plane: DataPlaneInProcess) -> str:
    versions = plane.call(plane.coordinator.snapshot()).standings.get("model", {})
    return versions["model@2.0.0"].state if "model@2.0.0" in versions else "healthy"


def test_a_route_without_experiments_is_counted_by_none(plane: DataPlaneInProcess) -> None:
    plane.replica(OLD)
    gateway: Gateway = plane.gateway()
    assert gateway.reading()["experiments"] == {"requests": {}, "dropped": 0, "outcomes": {}}
    assert not Path(plane.state_dir).exists()
