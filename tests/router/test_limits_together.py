"""Limits beside all else that a route can do: nothing is counted twice, kept for ever, or asked of whom it isn't."""

import random
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from nstarx.repository import Repository
from nstarx.spec.admission import AdmissionSpec, QueueSpec
from nstarx.spec.record import parse
from nstarx.spec.route import RouteSpec
from router.gateway import Gateway
from tests.in_process import DataPlaneInProcess
from tests.router.conftest import WriteModel
from tests.router.replicas import REF, configure, cut, lane, serve, sweep, total
from tests.router.test_limits import ONE, Crowd, gate, values
from tests.router.wire import FLAKY, Wire, flaky, hanging, in_flight, post

EVERYTHING = {
    "model": "flaky",
    "rules": [
        {"name": "vip", "match": {"headers": {"x-team": "vip"}}, "split": {"weighted": {REF: 1}}},
        {
            "name": "some",
            "match": {"percent": 50, "key": {"header": "x-user"}},
            "split": {"weighted": {REF: 1, "other@1.0.0": 0}},
        },
    ],
    "split": {
        "canary": {"stable": REF, "candidate": "other@1.0.0", "percent": 10},
        "sticky": {"cookie": {"name": "who"}},
    },
    "timeout_s": 2,
    "rate_limits": [
        {"name": "user", "requests": 100_000, "window_s": 1, "burst": 20, "key": {"header": "x-user"}},
        {"name": "all", "requests": 100_000, "window_s": 1},
    ],
    "cache": {"ttl_s": 1},
    "admission": {
        "min_concurrency": 2,
        "max_concurrency_limit": 3,
        "queue": {"max_queue_size": 4, "priority_levels": 3},
    },
    "balancing": {"policy": "ring_hash", "slow_start_s": 1, "ejection": {"consecutive_failures": 3}},
    "retry": {
        "num_retries": 2,
        "per_try_timeout_s": 0.2,
        "retry_on": ["reset", "refused", "per_try_timeout", "server_error"],
    },
    "hedge": {"after_s": 0.01, "budget_percent": 50, "max_extra": 2},
    "fallback": {"static": {"body": {"outputs": []}, "status": 200}},
    "shadows": [{"version": "echo@1.0.0", "percent": 50}],
}


SEED = 7


@pytest.fixture
def stack() -> Any:
    with ExitStack() as stack:
        yield stack


def at_rest(plane: DataPlaneInProcess, gateway: Gateway) -> None:
    gates = gateway.compiler.restraints.gates.values()
    plane.until(lambda: in_flight(gateway) == 0)
    plane.until(lambda: all(gate.reading()["in_flight"] == 0 for gate in gates))
    assert all(gate.waiting == 0 for gate in gates)
    plane.until(lambda: not any(lane.waiting for lane in gateway.all_lanes()))


def test_nothing_is_lost_or_left_over_when_everything_goes_wrong_at_once(
    plane: DataPlaneInProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """Replicas fail, dawdle and are cut off while impatient clients come and go."""
    spec = parse(RouteSpec, EVERYTHING, "route")
    plane.replica("echo@1.0.0")
    gateway = serve(plane, spec)
    seen: Counter[int | str] = Counter()
    ends = threading.Event()

    def client(number: int) -> None:
        chance = random.Random(SEED + number)
        with httpx.Client() as http:
            while not ends.is_set():
                headers = {"x-user": f"u{chance.randrange(5)}", "x-nstarx-priority": str(chance.randrange(5))}
                if chance.random() < 0.3:
                    headers["x-request-timeout-seconds"] = str(chance.choice([0.002, 0.05, 0.3]))
                if chance.random() < 0.1:
                    headers["x-team"] = "vip"
                try:
                    patience = chance.choice([0.01, 5.0, 5.0])
                    body = flaky(chance.randrange(6))
                    answer = http.post(
                        f"http://127.0.0.1:{gateway.spec.port}{FLAKY}", content=body, headers=headers, timeout=patience
                    )
                    seen[answer.status_code] += 1
                    if answer.status_code == 200:
                        orjson.loads(answer.content)
                except httpx.TimeoutException:
                    seen["left"] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    chance = random.Random(SEED)
    start = lane(gateway, plane.replicas[1]).started_at
    for second in range(30):
        replica = chance.choice(plane.replicas[1:])
        rate = chance.choice([0.0, 0.5, 1.0])
        configure(plane, replica, error_rate=rate, latency_ms=chance.choice([0, 20]))
        if second % 10 == 5:
            cut(plane, replica)
        sweep(plane, gateway, start + second)
        ends.wait(0.1)
    for replica in plane.replicas[1:]:
        configure(plane, replica)
    ends.set()
    for thread in threads:
        thread.join()
    assert set(seen) <= {200, 429, 500, 503, 504, "left"}, seen
    assert seen[200] > 50
    assert total(gateway, "hedges")
    assert total(gateway, "retries")
    at_rest(plane, gateway)
    # The model's own failures are meant; the gateway has none.
    assert not [log for log in caplog.records if log.levelname == "ERROR" and log.name != "nstarx.serving"]
    with Wire(gateway) as wire:
        assert wire.send(post(FLAKY, flaky(99.0), "X-User: somebody")).answer().status == 200


def test_those_who_ask_the_same_wait_for_one_that_was_let_in(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    none = ONE.model_copy(update={"queue": QueueSpec(max_queue_size=0)})
    gateway = serve(plane, parse(RouteSpec, {**plain(none), "cache": {"ttl_s": 60}}, "route"), replicas=1)
    people = Crowd(plane, gateway)
    stack.callback(people.close)
    with hanging(plane):
        first = people.ask(1.0)
        same = people.ask(1.0)
        other = people.ask(2.0)
        assert other.answer().status == 503
        assert gate(gateway).reading()["in_flight"] == 1
    assert values(first, same) == [2.0, 2.0]
    at_rest(plane, gateway)
    assert people.ask(2.0).answer().status == 200


def test_who_waits_for_one_that_is_turned_away_is_asked_for_itself(plane: DataPlaneInProcess, stack: ExitStack) -> None:
    gateway = serve(plane, parse(RouteSpec, {**plain(ONE), "cache": {"ttl_s": 60}}, "route"), replicas=1)
    people = Crowd(plane, gateway)
    stack.callback(people.close)
    with hanging(plane):
        begun = people.ask(1.0)
        leader = people.ask(2.0, "X-Request-Timeout-Seconds: 0.05")
        follower = people.ask(2.0)
        assert leader.answer().status == 504
    assert values(begun, follower) == [2.0, 4.0]
    at_rest(plane, gateway)


def plain(admission: AdmissionSpec) -> dict[str, Any]:
    return {
        "model": "flaky",
        "split": {"weighted": {REF: 1}},
        "demotion": None,
        "admission": admission.model_dump(),
    }


STREAM = """
import asyncio


class Model:
    async def infer(self, inputs):
        yield {"y": inputs["x"]}
        await asyncio.sleep(0.3)
        yield {"y": inputs["x"] * 2}
"""


def test_stream_that_has_begun_in_time_is_ended_by_no_time_of_a_try_and_asks_nobody_else(
    plane: DataPlaneInProcess, write_model: WriteModel, tmp_path: Path
) -> None:
    write_model("slow", STREAM)
    plane.repository = Repository(tmp_path)
    for _ in range(2):
        plane.replica("slow@1.0.0")
    document = {
        **plain(ONE),
        "model": "slow",
        "split": {"weighted": {"slow@1.0.0": 1}},
        "retry": {"per_try_timeout_s": 0.1, "retry_on": ["per_try_timeout"]},
        "hedge": {"after_s": 0.05, "budget_percent": 100},
    }
    gateway = plane.gateway((parse(RouteSpec, document, "route"),))
    with Wire(gateway) as wire:
        answer = wire.send(post("/v2/models/slow/infer", flaky(1.0), "Accept: text/event-stream")).answer()
    numbers = [orjson.loads(line[6:])["outputs"][0]["data"] for line in answer.body.split(b"\n\n")[:-1]]
    assert (answer.status, numbers) == (200, [[1.0], [2.0]])
    assert total(gateway, "hedges") == 0
    at_rest(plane, gateway)
