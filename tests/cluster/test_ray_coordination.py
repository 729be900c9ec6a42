"""What only the coordinator's actor can show: a process of its own, which may die."""

import asyncio
import os
import pickle
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import ray

from cluster.coordination import CoordinatorUnavailable, NotJoined
from cluster.experiments import Exposed
from cluster.ray_coordination import RayCoordination, Refusal, find_or_create
from cluster.records import Snapshot
from judging.experiment import Recording
from nstarx.errors import Conflict, NStarXError, Overloaded
from nstarx.spec.experiment import OutcomeRecord
from tests.cluster.samples import IRIS, LABEL, replica, spec

pytestmark = pytest.mark.anyio


@pytest.fixture
def name(ray_cluster: None) -> Iterator[str]:
    """Another one for each test, because an actor takes a moment to die."""
    name = f"coordinator-{uuid4().hex}"
    yield name
    ray.kill(find_or_create(name))


@pytest.fixture
def coordination(name: str) -> RayCoordination:
    return RayCoordination(name)


async def join_again(coordination: RayCoordination, held: Snapshot, state_dir: str | None = None) -> Snapshot:
    """As a gateway does: repeat until the coordinator is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await coordination.join("g1", held, state_dir=state_dir)
            except CoordinatorUnavailable:
                await asyncio.sleep(0.1)


@pytest.mark.ray
async def test_coordinator_that_is_killed_ends_watches_and_comes_back_with_its_state(
    coordination: RayCoordination,
) -> None:
    await coordination.join("g1", Snapshot())
    await coordination.register(replica("r1"), spec())
    await coordination.apply_routes(IRIS)
    await coordination.apply_settings("iris@1.0.0", {"threshold": 0.9})
    held = await coordination.snapshot()
    watch = asyncio.create_task(coordination.watch("g1", held.number, timeout_s=15))
    killed = await coordination.pid()

    os.kill(killed, signal.SIGKILL)

    async with asyncio.timeout(10):
        with pytest.raises(CoordinatorUnavailable) as died:
            await watch
    assert (died.value.status, died.value.code) == (503, "coordinator_unavailable")
    joined = await join_again(coordination, held)
    assert await coordination.pid() != killed
    assert joined.number == held.number + 1
    assert joined.epoch != held.epoch
    assert (joined.routes, joined.settings) == (held.routes, held.settings)
    assert (joined.replicas, joined.models) == (held.replicas, held.models)
    assert (await coordination.beat("r1")).settings == {"threshold": 0.9}


@pytest.mark.ray
async def test_coordinator_that_is_gone_for_good_is_made_anew(coordination: RayCoordination, name: str) -> None:
    held = await coordination.join("g1", Snapshot(number=7, epoch="former life", routes=IRIS.routes))
    ray.kill(find_or_create(name))
    joined = await join_again(coordination, held)
    assert (joined.number, joined.routes) == (held.number + 1, held.routes)


@pytest.mark.ray
async def test_every_client_meets_the_same_coordinator_which_forgets_silent_replicas_by_itself(
    coordination: RayCoordination, name: str
) -> None:
    await coordination.register(replica("r1"), spec())
    other = RayCoordination(name)
    assert [record.replica for record in (await other.snapshot()).replicas] == ["r1"]
    joined = await other.join("g1", Snapshot())
    await other.report_loss("r1")
    seen = await other.watch("g1", joined.number, timeout_s=15)
    assert seen is not None
    assert seen.replicas == ()


@pytest.mark.ray
async def test_killing_the_coordinator_among_outcomes_loses_and_doubles_none(
    coordination: RayCoordination, tmp_path: Path
) -> None:
    """A gateway hands in assignments, callers report outcomes; both repeat what was not confirmed, and nothing else."""
    state_dir = str(tmp_path / "state")
    await coordination.join("g1", Snapshot(), state_dir=state_dir)
    await coordination.apply_routes(LABEL)
    started = (await coordination.start_experiment("label")).started or 0.0
    held = await coordination.snapshot()
    arms = list(held.trials["label"].weights)
    killed: list[int] = []
    repeated: list[str] = []

    async def hand_in() -> None:
        for number in range(60):
            assignments = {f"u{number}-{place}": arms[place % 2] for place in range(10)}
            exposed = Exposed("label", started, held.trials["label"].weights, assignments)
            await confirmed(partial(coordination.hand_in, "g1", number, (exposed,)))

    async def report() -> None:
        for number in range(60):
            outcomes = tuple(
                OutcomeRecord(assignment=f"u{number}-{place}", metric="accepted", value=place % 2)
                for place in range(10)
            )
            await confirmed(partial(coordination.report_outcomes, "label", outcomes))

    async def confirmed(call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
                return
            except CoordinatorUnavailable as error:
                repeated.append(error.sentence)
                await join_again(coordination, held, state_dir)
            except NotJoined:
                await coordination.join("g1", held, state_dir=state_dir)

    async def kill() -> None:
        for _ in range(2):
            await asyncio.sleep(0.05)
            killed.append(await coordination.pid())
            os.kill(killed[-1], signal.SIGKILL)
            await join_again(coordination, held, state_dir)

    async with asyncio.timeout(100):
        await asyncio.gather(hand_in(), report(), kill())
    status = await coordination.experiment("label")
    assert len(set(killed)) == 2
    assert repeated
    assert (status.state, status.assigned, status.outcomes) == ("running", 600, 600)
    assert (status.waiting, status.lost) == (0, 0)
    [old, new] = (status.result or {})["means"]
    assert (status.result or {})["valid"]
    assert (old["mean"], new["mean"]) == (0.0, 1.0)
    again = await coordination.report_outcomes("label", (OutcomeRecord(assignment="u0-1", metric="accepted", value=1),))
    assert again == (Recording.DUPLICATE,)


@pytest.mark.parametrize("error", [Conflict('"a"', '"b"'), Overloaded("iris@1.0.0"), NStarXError("it is so")])
def test_error_travels_as_itself(error: NStarXError) -> None:
    arrived = pickle.loads(pickle.dumps(Refusal.of(error))).error()
    assert type(arrived) is type(error)
    assert (arrived.sentence, arrived.args, str(arrived)) == (error.sentence, error.args, str(error))
    assert (arrived.status, arrived.code, arrived.retry_after_s) == (error.status, error.code, error.retry_after_s)
