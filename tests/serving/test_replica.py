"""A replica's life: it registers, beats, takes settings, says when it is ill, and leaves without losing an answer."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import serving.replica
from cluster.coordination import Beat, CoordinatorUnavailable
from cluster.coordinator import Coordinator
from cluster.records import ReplicaRecord
from nstarx.errors import InvalidConfiguration, VersionNotFound
from nstarx.repository import Repository
from nstarx.spec.model import ModelSpec
from nstarx.spec.version import VersionRef
from router.lanes import Lane, connect
from serving.replica import Replica
from tests.in_process import MODELS, NODE
from tests.router.patron import Patron
from tests.serving.doubles import until

pytestmark = pytest.mark.anyio

FLAKY = VersionRef("flaky", "1.0.0")
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas whose heart beats fast, so that no test waits for it."""
    monkeypatch.setattr(serving.replica, "BEAT_S", 0.002)
    monkeypatch.setattr(serving.replica, "LEAVE_S", 0.02)


class Moody(Coordinator):
    """A coordinator that can be away, hang or break, and counts what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: BaseException | None = None
        self.hangs = False
        self.beats = 0
        self.attempts = 0

    async def register(self, record: ReplicaRecord, spec: ModelSpec) -> dict[str, Any]:
        await self._mood()
        return await super().register(record, spec)

    async def beat(self, replica: str) -> Beat:
        await self._mood()
        self.beats += 1
        return await super().beat(replica)

    async def leave(self, replica: str) -> None:
        await self._mood()
        await super().leave(replica)

    async def _mood(self) -> None:
        self.attempts += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble:
            raise self.trouble

    async def replicas(self) -> list[str]:
        return [record.replica for record in (await self.snapshot()).replicas]

    async def beaten(self, times: int = 3) -> None:
        """Wait for so many more beats."""
        seen = self.beats
        await until(lambda: self.beats >= seen + times)


@pytest.fixture
def coordinator() -> Moody:
    return Moody()


@contextlib.asynccontextmanager
async def alive(coordinator: Moody, root: Path = MODELS, host: str | None = None) -> AsyncIterator[Replica]:
    replica = Replica(Repository(root), FLAKY, NODE, host, coordinator)
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


async def lane_to(replica: Replica, coordinator: Coordinator) -> Lane:
    """A lane to it, opened as a gateway would: with what the coordinator says."""
    [record] = [each for each in (await coordinator.snapshot()).replicas if each.replica == replica.id]
    return await connect(record, 100, NODE)


def has_socket(record: ReplicaRecord) -> bool:
    return any(Path(address.removeprefix("unix:")).exists() for address in record.addresses)


async def status(lane: Lane) -> int:
    patron = Patron(body=BODY)
    lane.send(patron)
    await until(lambda: bool(patron.heard))
    return patron.status


def impatient(root: Path) -> Path:
    """A repository in which the flaky model may hang for 20 milliseconds alone."""
    folder = shutil.copytree(MODELS / "flaky" / "1.0.0", root / "flaky" / "1.0.0")
    document = yaml.safe_load((folder / "model.yaml").read_text())
    document["limits"] = {"hang_timeout_s": 0.02}
    (folder / "model.yaml").write_text(yaml.safe_dump(document))
    return root


# Registering


async def test_replica_is_reached_by_what_it_registered(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        assert await status(lane) == 200
        lane.drain()


async def test_replica_with_a_host_is_reached_from_other_nodes(coordinator: Moody) -> None:
    async with alive(coordinator, host="127.0.0.1"):
        [record] = (await coordinator.snapshot()).replicas
        lane = await connect(record, 100, "another node")
        assert await status(lane) == 200
        lane.drain()


async def test_every_start_has_its_own_id_and_key(coordinator: Moody) -> None:
    async with alive(coordinator), alive(coordinator):
        first, second = (await coordinator.snapshot()).replicas
        assert first.replica != second.replica
        assert first.key != second.key
        assert set(first.addresses).isdisjoint(second.addresses)


async def test_version_that_is_not_there_does_not_start(coordinator: Moody) -> None:
    replica = Replica(Repository(MODELS), VersionRef("flaky", "9.0.0"), NODE, None, coordinator)
    with pytest.raises(VersionNotFound):
        await replica.start()
    assert await coordinator.replicas() == []


async def test_replica_waits_for_a_coordinator_that_is_not_there_yet(coordinator: Moody) -> None:
    coordinator.trouble = CoordinatorUnavailable("not yet")
    replica = Replica(Repository(MODELS), FLAKY, NODE, None, coordinator)
    start = asyncio.create_task(replica.start())
    await until(lambda: coordinator.attempts > 3)
    assert not start.done()
    coordinator.trouble = None
    await start
    assert await coordinator.replicas() == [replica.id]
    await replica.stop()


async def test_replica_that_the_coordinator_forgot_registers_again(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        coordinator.tick(time.monotonic() + 1000)
        assert await coordinator.replicas() == []
        await coordinator.beaten()
        assert await coordinator.replicas() == [replica.id]
        lane = await lane_to(replica, coordinator)
        assert await status(lane) == 200
        lane.drain()


@pytest.mark.parametrize("trouble", [CoordinatorUnavailable("restarting"), RuntimeError("a defect")])
async def test_heart_beats_on_after_the_coordinator_was_in_trouble(coordinator: Moody, trouble: Exception) -> None:
    async with alive(coordinator) as replica:
        coordinator.trouble = trouble
        seen = coordinator.attempts
        await until(lambda: coordinator.attempts > seen + 3)
        coordinator.trouble = None
        coordinator.tick(time.monotonic() + 1000)
        await coordinator.beaten()
        assert await coordinator.replicas() == [replica.id]


# Settings


async def test_live_settings_reach_the_model_and_can_be_taken_back(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 1.0})
        await coordinator.beaten()
        assert await status(lane) == 500
        await coordinator.apply_settings(str(FLAKY), {"error_rate": None})
        await coordinator.beaten()
        assert await status(lane) == 200
        lane.drain()


async def test_live_settings_reach_a_replica_that_starts_later(coordinator: Moody) -> None:
    async with alive(coordinator):
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 1.0})
        async with alive(coordinator) as late:
            lane = await lane_to(late, coordinator)
            assert await status(lane) == 500
            lane.drain()


async def test_refused_setting_changes_nothing_and_is_told_once(
    coordinator: Moody, caplog: pytest.LogCaptureFixture
) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 7})
        await coordinator.beaten(5)
        assert await status(lane) == 200
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 1})
        await coordinator.beaten()
        assert await status(lane) == 500
        lane.drain()
    refused = [record for record in caplog.records if record.__dict__.get("action") == "settings_refused"]
    assert len(refused) == 1
    assert "error_rate: 7 is not a number from 0 to 1" in refused[0].message


async def test_live_settings_go_over_those_of_the_deployment(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        await replica.reconfigure({"error_rate": 1.0})
        assert await status(lane) == 500
        await coordinator.apply_settings(str(FLAKY), {"latency_ms": 0.1})
        await coordinator.beaten()
        assert await status(lane) == 500
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 0.0})
        await coordinator.beaten()
        assert await status(lane) == 200
        await replica.reconfigure({"error_rate": 1.0, "latency_ms": 0.0})
        assert await status(lane) == 200
        lane.drain()


async def test_settings_of_the_deployment_that_the_model_refuses_are_refused_every_time(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        for _ in range(2):
            with pytest.raises(InvalidConfiguration, match="error_rate"):
                await replica.reconfigure({"error_rate": "often"})
        await replica.reconfigure({})
        assert await status(lane) == 200
        lane.drain()


async def test_refused_live_setting_does_not_spoil_the_deployments_own(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        await coordinator.apply_settings(str(FLAKY), {"error_rate": 7})
        await coordinator.beaten()
        await replica.reconfigure({"error_rate": 1.0})
        assert await status(lane) == 500
        lane.drain()


# Health


async def test_replica_that_answers_is_healthy(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        assert replica.unhealthy(time.monotonic()) is None


async def test_hung_run_is_unhealthy_and_the_loop_stays_live(coordinator: Moody, tmp_path: Path) -> None:
    async with alive(coordinator, impatient(tmp_path)) as replica:
        lane = await lane_to(replica, coordinator)
        await coordinator.apply_settings(str(FLAKY), {"hang": True})
        await coordinator.beaten()
        patron = Patron(body=BODY)
        lane.send(patron)
        await until(lambda: "a run has taken" in str(replica.unhealthy(replica.beat_at)))
        assert (await lane.ask()).startswith(b"{")
        await coordinator.apply_settings(str(FLAKY), {"hang": False})
        await until(lambda: patron.heard == ["response"])
        assert replica.unhealthy(replica.beat_at) is None
        lane.drain()


async def test_silent_loop_is_unhealthy(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        limit = replica.spec.limits.hang_timeout_s
        assert replica.unhealthy(replica.beat_at + limit - 1) is None
        assert "the event loop has been silent" in str(replica.unhealthy(replica.beat_at + limit + 1))


@pytest.mark.parametrize("away", ["hangs", "forgets and fails"])
async def test_coordinator_that_does_not_answer_makes_no_replica_unhealthy(coordinator: Moody, away: str) -> None:
    async with alive(coordinator) as replica:
        if away == "hangs":
            coordinator.hangs = True
        else:
            coordinator.tick(time.monotonic() + 1000)
            coordinator.trouble = CoordinatorUnavailable("away")
        seen = coordinator.attempts
        await until(lambda: coordinator.attempts > seen)
        before = replica.beat_at
        await until(lambda: replica.beat_at > before)


async def test_report_tells_what_the_process_costs(coordinator: Moody) -> None:
    async with alive(coordinator) as replica:
        lane = await lane_to(replica, coordinator)
        await status(lane)
        report = replica.report()
        assert (report["succeeded"], report["backlog"]) == (1, 0)
        assert report["rss_bytes"] > 1 << 20
        assert report["cpu_s"] > 0
        lane.drain()


# Leaving


async def test_stop_answers_what_is_under_way_and_leaves_nothing_behind(coordinator: Moody) -> None:
    replica = Replica(Repository(MODELS), FLAKY, NODE, None, coordinator)
    await replica.start()
    lane = await lane_to(replica, coordinator)
    assert has_socket(lane.record)
    await coordinator.apply_settings(str(FLAKY), {"hang": True})
    await coordinator.beaten()
    patron = Patron(body=BODY)
    lane.send(patron)
    await until(lambda: replica.batcher.running_for() > 0)
    stop = asyncio.create_task(replica.stop())
    await until(lambda: not lane.open)
    assert await coordinator.replicas() == []
    replica.runtime.reconfigure({"hang": False})
    await stop
    assert (patron.heard, patron.status) == (["response"], 200)
    assert not has_socket(lane.record)
    assert not [task for task in asyncio.all_tasks() if "Replica" in repr(task.get_coro())]


@pytest.mark.parametrize("away", ["gone", "hangs", "broken"])
async def test_stop_answers_what_is_under_way_whatever_became_of_the_coordinator(coordinator: Moody, away: str) -> None:
    replica = Replica(Repository(MODELS), FLAKY, NODE, None, coordinator)
    await replica.start()
    lane = await lane_to(replica, coordinator)
    patron = Patron(body=BODY)
    lane.send(patron)
    coordinator.hangs = away == "hangs"
    coordinator.trouble = {"gone": CoordinatorUnavailable("gone"), "broken": RuntimeError("a defect")}.get(away)
    await replica.stop()
    assert (patron.heard, patron.status) == (["response"], 200)
    await lane.gone


async def test_stop_does_not_wait_for_ever_for_a_run_that_hangs(
    coordinator: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.replica, "DRAIN_S", 0.02)
    replica = Replica(Repository(MODELS), FLAKY, NODE, None, coordinator)
    await replica.start()
    lane = await lane_to(replica, coordinator)
    model = replica.runtime
    model.reconfigure({"hang": True})
    patron = Patron(body=BODY)
    lane.send(patron)
    await until(lambda: replica.batcher.running_for() > 0)
    await replica.stop()
    await until(lambda: patron.heard == ["lost"])
    model.reconfigure({"hang": False})  # It was not closed under the run.
