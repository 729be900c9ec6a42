"""An experiment through real gateways, with users who stay and a coordinator that dies."""

import os
import signal
from typing import Any

import pytest

from cluster.ray_coordination import RayCoordination
from cluster.thread import LoopThread
from nstarx.client import Inference
from nstarx.errors import NStarXError
from tests.end_to_end.conftest import SHARES, Served, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

OLD, NEW = "iris@1.0.0", "iris@1.1.0"
EXPERIMENT = {
    "name": "label",
    "arms": {OLD: 1, NEW: 1},
    "control": OLD,
    "key": {"header": "x-user"},
    "primary": {"metric": "accepted", "kind": "binary", "direction": "increase"},
}
FLOWER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}


def ask(client: Inference, user: str) -> tuple[str, str]:
    """The user's assignment and arm."""
    answer = client.ask("POST", "/v2/models/iris/infer", json=FLOWER, headers={"x-user": user})
    assert answer.headers["x-nstarx-version"] == answer.headers["x-nstarx-arm"]
    return answer.headers["x-nstarx-assignment"], answer.headers["x-nstarx-arm"]


def report(client: Inference, assignment: str, content: bool) -> None:
    """As callers do: repeat what was answered 503."""
    outcome: dict[str, Any] = {"assignment": assignment, "metric": "accepted", "value": int(content)}

    def confirmed() -> bool:
        try:
            return bool(client.report_outcomes("label", [outcome]))
        except NStarXError as error:
            if error.status != 503:
                raise
            return False

    until(confirmed)


def kill_coordinator() -> None:
    thread = LoopThread("test")
    pid = thread.submit(RayCoordination().pid()).result(timeout=30)
    thread.stop()
    os.kill(pid, signal.SIGKILL)


def test_experiment_reaches_its_verdict_through_the_death_of_the_coordinator(served: Served) -> None:
    arms: dict[str, str] = {}
    with served.admin as admin, Inference(f"http://{served.url}") as client:
        admin.apply_routes(
            {"routes": [{"model": "iris", "split": {"experiment": "label"}}], "experiments": [EXPERIMENT]}
        )
        admin.start_experiment("label")
        until(lambda: _agree(admin))
        try:
            for number in range(240):
                user = f"user-{number}"
                assignment, arms[user] = ask(client, user)
                if number in (80, 160):
                    kill_coordinator()
                report(client, assignment, number % 10 < (9 if arms[user] == NEW else 3))
            until(lambda: admin.experiment("label")["outcomes"] == 240)
            status = admin.experiment("label")
            assert (status["assigned"], status["waiting"], status["lost"]) == (240, 0, 0)
            until(lambda: admin.experiment("label")["result"]["winner"] == NEW)  # Verdicts may be a second old.
            until(lambda: any(event["kind"] == "ExperimentDecided" for event in admin.events()))
            assert {user: ask(client, user)[1] for user in list(arms)[:40]} == dict(list(arms.items())[:40])
        finally:
            until(lambda: _stopped(admin))
            admin.apply_routes({"routes": [{"model": "iris", "split": {"weighted": SHARES}}]})


def _stopped(admin: Any) -> bool:
    try:
        return bool(admin.stop_experiment("label"))
    except NStarXError:
        return False


def _agree(admin: Any) -> bool:
    """Whether all gateways hold the same snapshot."""
    status = admin.status()
    return {gateway["snapshot"] for gateway in status["gateways"]} == {status["snapshot"]}
