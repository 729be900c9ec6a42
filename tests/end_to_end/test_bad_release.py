"""The story of a bad release through real Ray Serve: two gateways, real clients, and a coordinator that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.applications import run
from cluster.ray_coordination import RayCoordination
from cluster.thread import LoopThread
from nstarx.client import Admin
from nstarx.errors import NStarXError
from nstarx.spec.cluster import GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, VERSION_IMPORT_PATH
from nstarx.spec.version import VersionRef
from tests.end_to_end.conftest import VERSIONS, Served, gateway_args, until
from tests.in_process import MODELS
from tests.load import Load, load
from tests.router.wire import flaky
from tests.story import CANDIDATE, PATH, STABLE, metric

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

RELEASED = {**VERSIONS, CANDIDATE: 1}
SOON = {"min_requests": 5, "demotion_time_s": 1, "probation_percent": 25, "probation_step_s": 1, "interval_s": 5}
"""A policy whose times a test can wait for."""


def deploy(ref: str, replicas: int = 1) -> None:
    args = {"version": ref, "replicas": replicas, "repository": str(MODELS)}
    run([(VersionRef.parse(ref).slug, VERSION_IMPORT_PATH, args)])


@pytest.fixture(scope="module")
def released(served: Served) -> Iterator[Served]:
    """The candidate is deployed beside the stable version; nobody has sent it anything."""
    from ray import serve

    with served.admin as admin:
        before, _ = admin.routes()
        deploy(CANDIDATE)
        until(lambda: served.replicas() == RELEASED)
    yield served
    with served.admin as admin:
        admin.apply_routes(before)
    serve.delete(VersionRef.parse(CANDIDATE).slug, _blocking=True)
    until(lambda: served.replicas() == VERSIONS)


@pytest.fixture
def admin(released: Served) -> Iterator[Admin]:
    """A candidate that is healthy, on a route of which nothing is remembered."""
    with released.admin as admin:
        admin.apply_settings(CANDIDATE, {"error_rate": 0.0})
        yield admin
    until(lambda: gateways(released) > 0)
    with released.admin as admin:
        admin.apply_routes({"routes": []})


def release(admin: Admin, percent: float, **parts: Any) -> None:
    """The route, in force in every gateway."""
    canary = {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}
    split = {"canary": canary, **parts.pop("split", {})}
    number = admin.apply_routes({"routes": [{"model": "flaky", "split": split, **parts}]})["number"]
    until(lambda: all(gateway["snapshot"] >= number for gateway in admin.status()["gateways"]))


@contextmanager
def traffic(served: Served) -> Iterator[Load]:
    """Clients that none of what happens may fail."""
    with load(served.port, PATH, flaky(1.0)) as requests:
        yield requests
    assert not requests.failed


def more(requests: Load, number: int) -> None:
    seen = requests.total
    until(lambda: requests.total >= seen + number)


def row(admin: Admin) -> dict[str, Any]:
    """What the candidate has, and where it stands."""
    return next(row for row in admin.status()["shares"] if row["version"] == CANDIDATE)


def calls(admin: Admin, requests: Load) -> float:
    """That the split has given the candidate, in all gateways up to now: their reports are a second old at the most."""
    time.sleep(1.5)
    more(requests, 1)
    return metric(admin, "nstarx_requests_total", version=CANDIDATE, role="candidate")


def kinds(admin: Admin, after: int) -> list[str]:
    told = ("Suspected", "Demoted", "Probation", "Recovered", "DemotionUndone", "GivenUp")
    return [event["kind"] for event in admin.events(after) if event["kind"] in told and event["kind"] != "Suspected"]


def gateways(served: Served) -> int:
    """How many there are; 0 while administration moves from one that stops to another."""
    try:
        with served.admin as admin:
            return len(admin.status()["gateways"])
    except NStarXError:
        return 0


def nstarx(served: Served, *arguments: str) -> str:
    """What a command prints, in a process of its own."""
    command = [str(Path(sys.executable).parent / "nstarx"), *arguments, "--admin-url", served.admin.url]
    return subprocess.run(
        command, env={**os.environ, "COLUMNS": "240"}, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_release_that_breaks_is_rescued_demoted_seen_and_undone(released: Served, admin: Admin) -> None:
    release(admin, 10)
    start = admin.events()[-1]["number"]
    failed = {"version": CANDIDATE, "role": "candidate", "code": "500"}
    known = metric(admin, "nstarx_rescues_total"), metric(admin, "nstarx_requests_total", **failed)
    with traffic(released) as requests:
        more(requests, 200)
        nstarx(released, "configure", CANDIDATE, "error_rate=1")
        until(lambda: row(admin)["state"] == "demoted")
        numbers = {gateway["gateway"]: gateway["snapshot"] for gateway in admin.status()["gateways"]}
        until(lambda: len({gateway["snapshot"] for gateway in admin.status()["gateways"]}) == 1)
        before = calls(admin, requests)
        more(requests, 1000)
        assert calls(admin, requests) == before, "some gateway goes on sending"
    assert len(numbers) == 2

    record = admin.demotions()[-1]
    assert (record["route"], record["version"], record["outcome"]) == ("flaky", CANDIDATE, "demoted")
    assert record["evidence"]["stable"]["failures"] == 0
    assert len(record["evidence"]["first_failing"]) >= 5
    assert kinds(admin, start) == ["Demoted"]
    rescues, failures = metric(admin, "nstarx_rescues_total"), metric(admin, "nstarx_requests_total", **failed)
    assert rescues - known[0] == failures - known[1] > 0
    assert metric(admin, "nstarx_version_state", version=CANDIDATE, state="demoted") == 1

    assert f"{CANDIDATE} is DEMOTED on route 'flaky'" in nstarx(released, "status")
    shown = nstarx(released, "demotions", "show", str(record["id"]))
    assert record["sentence"] in shown
    assert record["evidence"]["first_failing"][0] in shown
    assert "is demoted" in nstarx(released, "routes", "explain", "flaky")
    assert record["sentence"] in nstarx(released, "events", "-n", "5")

    nstarx(released, "configure", CANDIDATE, "error_rate=0")
    nstarx(released, "demotions", "undo", str(record["id"]))
    with traffic(released) as requests:
        until(lambda: requests.answered[CANDIDATE] >= 20)
    assert row(admin)["state"] == "healthy"
    assert kinds(admin, start) == ["Demoted", "DemotionUndone"]


def test_mended_release_comes_back_by_probation_and_is_promoted(released: Served, admin: Admin) -> None:
    release(admin, 50, demotion=SOON)
    start = admin.events()[-1]["number"]
    with traffic(released) as requests:
        admin.apply_settings(CANDIDATE, {"error_rate": 1.0})
        until(lambda: "Demoted" in kinds(admin, start))
        admin.apply_settings(CANDIDATE, {"error_rate": 0.0})
        until(lambda: row(admin)["state"] == "healthy" and "Recovered" in kinds(admin, start))
        nstarx(released, "canary", "flaky", "100")
        seen = Counter(requests.answered)
        until(lambda: requests.answered[CANDIDATE] > seen[CANDIDATE] + 500)
    told = kinds(admin, start)
    assert (told[0], told[-1]) == ("Demoted", "Recovered")
    assert set(told[1:-1]) <= {"Probation", "Demoted"}


def test_demoted_version_stays_demoted_when_the_coordinator_is_killed(released: Served, admin: Admin) -> None:
    release(admin, 10)
    thread, coordination = LoopThread("test"), RayCoordination()
    with traffic(released) as requests:
        admin.apply_settings(CANDIDATE, {"error_rate": 1.0})
        until(lambda: row(admin)["state"] == "demoted")
        record = admin.demotions()[-1]
        killed = thread.submit(coordination.pid()).result()
        os.kill(killed, signal.SIGKILL)
        until(lambda: admin.status()["coordinator"] == "present" and released.replicas() == RELEASED)
        assert thread.submit(coordination.pid()).result() != killed
        until(lambda: len(admin.status()["gateways"]) == 2)
        before = calls(admin, requests)
        more(requests, 1000)
        after = calls(admin, requests)
        assert row(admin)["state"] in ("demoted", "probation")
        if row(admin)["state"] == "demoted":
            assert after == before
    thread.stop()
    kept = {(r["time"], r["version"], r["sentence"]) for r in admin.demotions()}
    assert (record["time"], record["version"], record["sentence"]) in kept
    told = [event["kind"] for event in admin.events()]
    assert told.index("CoordinatorRestarted") > told.index("Demoted")


def test_users_stay_with_their_version_through_scaling_and_changes_of_weight(released: Served, admin: Admin) -> None:
    """They move from the stable version to the candidate when its share rises, and otherwise never."""
    users = [f"user-{number}" for number in range(60)]

    def versions() -> dict[str, str]:
        # A connection for each request, so that the kernel spreads them over all gateways.
        found = {}
        for user in users:
            answer = httpx.post(f"http://{released.url}{PATH}", content=flaky(1.0), headers={"x-user": user})
            assert answer.status_code == 200
            found[user] = answer.headers["x-nstarx-version"]
        return found

    release(admin, 20, split={"sticky": {"header": "x-user"}})
    first = versions()
    assert set(first.values()) == {STABLE, CANDIDATE}
    deploy(CANDIDATE, 2)
    run([(GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, gateway_args(*released, processes=3))])
    until(lambda: released.replicas() == {**RELEASED, CANDIDATE: 2} and gateways(released) == 3)
    assert versions() == first

    with released.admin as other:  # whose connections are not to a gateway that has stopped
        release(other, 50, split={"sticky": {"header": "x-user"}})
    second = versions()
    assert {user for user in users if first[user] == CANDIDATE} < {user for user in users if second[user] == CANDIDATE}
    with released.admin as other:
        release(other, 20, split={"sticky": {"header": "x-user"}})
    assert versions() == first

    run([(GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, gateway_args(*released, processes=2))])
    deploy(CANDIDATE, 1)
    until(lambda: released.replicas() == RELEASED and gateways(released) == 2)
    assert versions() == first
