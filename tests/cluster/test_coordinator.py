"""The coordinator over time, which passes only when a test says so."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.coordination import NotJoined, RoutesSeed
from cluster.coordinator import Coordinator, Patience, merge_patch
from cluster.records import PURGES, CachePurge, Snapshot
from tests.cluster.samples import IRIS, IRIS_BOTH, Clock, replica, routes, spec

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def coordinator(clock: Clock) -> Coordinator:
    return Coordinator(clock=clock)


def after(clock: Clock, seconds: float, coordinator: Coordinator) -> None:
    clock.now += seconds
    coordinator.tick(clock.now)


async def live(coordinator: Coordinator) -> set[str]:
    return {record.replica for record in (await coordinator.snapshot()).replicas}


async def test_replica_that_stops_beating_is_dropped_after_its_expiry(clock: Clock, coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    await coordinator.register(replica("r2"), spec())
    after(clock, 6, coordinator)
    await coordinator.beat("r1")
    after(clock, 4, coordinator)
    assert await live(coordinator) == {"r1", "r2"}
    after(clock, 0.5, coordinator)
    assert await live(coordinator) == {"r1"}


async def test_lost_replica_is_dropped_after_two_seconds(clock: Clock, coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    await coordinator.report_loss("r1")
    after(clock, 1.5, coordinator)
    await coordinator.report_loss("r1")
    assert await live(coordinator) == {"r1"}
    after(clock, 1, coordinator)
    assert await live(coordinator) == set()


async def test_lost_replica_that_beats_is_trusted_again(clock: Clock, coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    await coordinator.report_loss("r1")
    after(clock, 1, coordinator)
    assert (await coordinator.beat("r1")).known
    after(clock, 9, coordinator)
    assert await live(coordinator) == {"r1"}


async def test_replica_that_registers_again_moves_without_leaving_a_trace(coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    before = await coordinator.snapshot()
    await coordinator.register(replica("r1"), spec())
    assert await coordinator.snapshot() is before
    await coordinator.register(replica("r1", "iris@2.0.0"), spec("iris@2.0.0"))
    moved = await coordinator.snapshot()
    assert (len(moved.replicas), set(moved.models)) == (1, {"iris@2.0.0"})


async def test_adopted_replica_has_a_grace_to_show_itself(clock: Clock, coordinator: Coordinator) -> None:
    held = Snapshot(
        number=7,
        epoch="former life",
        models={"iris@1.0.0": spec(), "iris@2.0.0": spec("iris@2.0.0")},
        replicas=(replica("silent", "iris@2.0.0"), replica("beating"), replica("registered")),
    )
    await coordinator.join("g1", held)
    await coordinator.register(replica("registered"), spec())
    after(clock, 5, coordinator)
    assert (await coordinator.beat("beating")).known
    assert (await coordinator.beat("registered")).known
    after(clock, 5.5, coordinator)
    assert await live(coordinator) == {"beating", "registered"}
    assert set((await coordinator.snapshot()).models) == {"iris@1.0.0"}


async def test_replica_registered_in_this_life_outranks_what_a_gateway_remembers(coordinator: Coordinator) -> None:
    moved = replica("r1").model_copy(update={"addresses": ("tcp:10.0.0.2:4000",)})
    await coordinator.register(moved, spec())
    joined = await coordinator.join("g1", Snapshot(number=7, epoch="former life", replicas=(replica("r1"),)))
    assert joined.replicas == (moved,)


async def test_gateway_that_remembers_less_is_told_the_newer_state(coordinator: Coordinator) -> None:
    await coordinator.apply_routes(IRIS)
    current = await coordinator.snapshot()
    held = Snapshot(number=current.number, epoch="former life", routes=IRIS_BOTH.routes)
    assert await coordinator.join("g1", held) is current
    assert await coordinator.join("g1", current) is current


async def test_routes_and_settings_applied_in_this_life_outrank_adopted_ones(coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    await coordinator.apply_routes(IRIS)
    await coordinator.apply_settings("iris@1.0.0", {"threshold": 0.9})
    remembered = {"iris@1.0.0": {"threshold": 0.1}, "iris@0.9.0": {"threshold": 0.2}}
    held = Snapshot(number=99, epoch="former life", routes=IRIS_BOTH.routes, settings=remembered)
    joined = await coordinator.join("g1", held)
    assert joined.number == 100
    assert joined.routes == IRIS.routes
    assert joined.settings == {"iris@1.0.0": {"threshold": 0.9}, "iris@0.9.0": {"threshold": 0.2}}


async def test_purges_of_both_lives_reach_gateways_that_have_obeyed_none(coordinator: Coordinator) -> None:
    await coordinator.purge_caches("model:iris", "of this life")
    former = CachePurge(number=41, key="model:digits")
    joined = await coordinator.join("g1", Snapshot(number=42, epoch="former life", purges=(former,)))
    assert joined.purges == (former, CachePurge(number=43, key="model:iris"))
    assert joined.number == 43


async def test_purges_are_forgotten_when_many_have_followed(coordinator: Coordinator) -> None:
    for number in range(PURGES + 5):
        await coordinator.purge_caches(f"model:{number}", "a test asked for it")
    purges = (await coordinator.snapshot()).purges
    assert [purge.key for purge in purges] == [f"model:{number}" for number in range(5, PURGES + 5)]


async def test_newest_memory_of_a_former_life_wins(coordinator: Coordinator) -> None:
    older = Snapshot(number=7, epoch="former life", routes=IRIS.routes, settings={"iris@1.0.0": {"threshold": 0.1}})
    newer = Snapshot(number=9, epoch="former life", routes=IRIS_BOTH.routes, settings={"iris@1.0.0": {}})
    assert (await coordinator.join("g1", older)).number == 8
    joined = await coordinator.join("g2", newer)
    assert (joined.number, joined.routes, joined.settings) == (10, newer.routes, newer.settings)


async def test_changed_file_is_seeded_and_the_same_one_only_once(coordinator: Coordinator) -> None:
    await coordinator.join("g1", Snapshot(), RoutesSeed.of(IRIS))
    await coordinator.apply_routes(IRIS_BOTH)
    changed = RoutesSeed.of(routes(wine={"wine@1.0.0": 1}))
    assert (await coordinator.join("g1", Snapshot(), changed)).routes == changed.document.routes
    await coordinator.apply_routes(IRIS)
    assert (await coordinator.join("g1", Snapshot(), changed)).routes == IRIS.routes


async def test_seed_is_remembered_across_the_coordinator_s_death(coordinator: Coordinator) -> None:
    seed = RoutesSeed.of(IRIS)
    await coordinator.join("g1", Snapshot(), seed)
    await coordinator.apply_routes(IRIS_BOTH)
    reborn = Coordinator()
    joined = await reborn.join("g1", await coordinator.snapshot(), seed)
    assert (joined.routes, joined.seed) == (IRIS_BOTH.routes, seed.digest)


async def test_seed_is_taken_again_after_the_last_gateway_left(coordinator: Coordinator) -> None:
    seed = RoutesSeed.of(IRIS)
    await coordinator.join("g1", Snapshot(), seed)
    await coordinator.join("g2", Snapshot(), seed)
    await coordinator.apply_routes(IRIS_BOTH)
    await coordinator.leave_gateway("g1")
    assert (await coordinator.join("g1", Snapshot(), seed)).routes == IRIS_BOTH.routes
    await coordinator.leave_gateway("g1")
    await coordinator.leave_gateway("g2")
    assert (await coordinator.join("g3", Snapshot(), seed)).routes == IRIS.routes


async def test_etag_names_the_routes_and_not_the_way_to_write_them(coordinator: Coordinator) -> None:
    first = await coordinator.apply_routes(routes(iris={"iris@1.0.0": 9, "iris@2.0.0": 1}))
    same = await coordinator.apply_routes(routes(iris={"iris@2.0.0": 1.0, "iris@1.0.0": 9.0}), if_match=first.etag)
    other = await coordinator.apply_routes(IRIS, if_match="*")
    assert (same.changed, same.etag, same.number) == (False, first.etag, first.number)
    assert other.etag != first.etag
    assert first.etag.startswith('"')
    assert first.etag.endswith('"')


async def test_setting_that_python_takes_for_equal_is_a_change(coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec(settings={"verbose": 1}))
    assert not (await coordinator.apply_settings("iris@1.0.0", {"verbose": 1})).changed
    assert (await coordinator.apply_settings("iris@1.0.0", {"verbose": True})).changed
    assert (await coordinator.beat("r1")).settings["verbose"] is True


async def test_settings_wait_for_a_version_whose_replicas_restart(clock: Clock, coordinator: Coordinator) -> None:
    await coordinator.register(replica("r1"), spec())
    await coordinator.apply_settings("iris@1.0.0", {"threshold": 0.9})
    after(clock, 11, coordinator)
    assert await live(coordinator) == set()
    assert await coordinator.register(replica("r2"), spec()) == {"threshold": 0.9}


async def test_one_change_wakes_thousands_of_watchers_with_one_snapshot(coordinator: Coordinator) -> None:
    names = [f"g{n}" for n in range(3000)]
    for name in names:
        await coordinator.join(name, Snapshot())
    watches = [asyncio.create_task(coordinator.watch(name, 0, timeout_s=10)) for name in names]
    await asyncio.sleep(0)
    await coordinator.apply_routes(IRIS)
    current = await coordinator.snapshot()
    assert all(seen is current for seen in await asyncio.gather(*watches))


async def test_watch_is_cut_short_before_the_watcher_counts_as_silent(clock: Clock) -> None:
    coordinator = Coordinator(Patience(silence_s=0.02), clock)
    await coordinator.join("g1", Snapshot())
    async with asyncio.timeout(10):
        assert await coordinator.watch("g1", 0, timeout_s=3600) is None


async def test_silent_gateway_is_forgotten_with_its_report_and_must_join_again(
    clock: Clock, coordinator: Coordinator
) -> None:
    await coordinator.join("quiet", Snapshot(), RoutesSeed.of(IRIS))
    await coordinator.join("reporting", Snapshot())
    await coordinator.report("quiet", {"requests": 1})
    after(clock, 20, coordinator)
    await coordinator.report("reporting", {"requests": 2})
    assert [(member.gateway, member.age_s) for member in await coordinator.members()] == [
        ("quiet", 20),
        ("reporting", 0),
    ]
    after(clock, 11, coordinator)
    assert await coordinator.reports() == {"reporting": {"requests": 2}}
    with pytest.raises(NotJoined):
        await coordinator.watch("quiet", 0, timeout_s=0)


async def test_gateways_that_crash_do_not_undo_live_routes_when_they_come_back(
    clock: Clock, coordinator: Coordinator
) -> None:
    await coordinator.join("g1", Snapshot(), RoutesSeed.of(IRIS))
    await coordinator.apply_routes(IRIS_BOTH)
    after(clock, 31, coordinator)
    assert await coordinator.members() == ()
    assert (await coordinator.join("g2", Snapshot(), RoutesSeed.of(IRIS))).routes == IRIS_BOTH.routes


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_answers_the_examples_of_rfc_7386(
    target: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert merge_patch(target, patch) == merged


REPLICAS = st.sampled_from(["r1", "r2", "r3", "r4"])
REFS = st.sampled_from(["iris@1.0.0", "iris@2.0.0", "wine@1.0.0"])
GATEWAYS = st.sampled_from(["g1", "g2"])
DOCUMENTS = st.sampled_from([IRIS, IRIS_BOTH, routes()])


class AnyOrderOfVerbs(RuleBasedStateMachine):
    """Everybody speaks in any order, and the coordinator dies now and then; gateways remember its last snapshot."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.coordinator = Coordinator(clock=self.clock)
        self.patience = Patience()
        self.alive_until: dict[str, float] = {}
        self.handed_out: dict[tuple[str, int], tuple[Snapshot, str]] = {}
        self.highest = 0

    def teardown(self) -> None:
        self.runner.close()
        # A snapshot once handed out never changes.
        assert all(snapshot.model_dump_json() == then for snapshot, then in self.handed_out.values())

    @rule(name=REPLICAS, ref=REFS)
    def register(self, name: str, ref: str) -> None:
        self.runner.run(self.coordinator.register(replica(name, ref), spec(ref)))
        self.alive_until[name] = self.clock.now + self.patience.expiry_s

    @rule(name=REPLICAS)
    def beat(self, name: str) -> None:
        assert self.runner.run(self.coordinator.beat(name)).known == (name in self.alive_until)
        if name in self.alive_until:
            self.alive_until[name] = self.clock.now + self.patience.expiry_s

    @rule(name=REPLICAS)
    def leave(self, name: str) -> None:
        self.runner.run(self.coordinator.leave(name))
        self.alive_until.pop(name, None)

    @rule(name=REPLICAS)
    def report_loss(self, name: str) -> None:
        self.runner.run(self.coordinator.report_loss(name))
        if name in self.alive_until:
            self.alive_until[name] = min(self.alive_until[name], self.clock.now + self.patience.suspicion_s)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        after(self.clock, seconds, self.coordinator)
        self.alive_until = {name: until for name, until in self.alive_until.items() if until >= self.clock.now}

    @rule(document=DOCUMENTS, dry_run=st.booleans())
    def apply_routes(self, document: Any, dry_run: bool) -> None:
        self.runner.run(self.coordinator.apply_routes(document, dry_run=dry_run))

    @rule(ref=REFS, value=st.sampled_from([None, 1, {"deep": 1}, {"deep": None}]))
    def apply_settings(self, ref: str, value: Any) -> None:
        if ref in self.current().models:
            self.runner.run(self.coordinator.apply_settings(ref, {"value": value}))

    @rule(gateway=GATEWAYS, seed=st.one_of(st.none(), DOCUMENTS.map(RoutesSeed.of)))
    def join(self, gateway: str, seed: RoutesSeed | None) -> None:
        self.runner.run(self.coordinator.join(gateway, self.current(), seed))

    @rule(gateway=GATEWAYS)
    def leave_gateway(self, gateway: str) -> None:
        self.runner.run(self.coordinator.leave_gateway(gateway))

    @rule(gateway=GATEWAYS)
    def die_and_join(self, gateway: str) -> None:
        held = self.current()
        self.coordinator = Coordinator(clock=self.clock)
        joined = self.runner.run(self.coordinator.join(gateway, held))
        assert joined.routes == held.routes
        assert joined.settings == held.settings
        self.alive_until = dict.fromkeys(self.alive_until, self.clock.now + self.patience.grace_s)

    @invariant()
    def number_never_falls(self) -> None:
        assert self.current().number >= self.highest
        self.highest = self.current().number

    @invariant()
    def living_replicas_are_shown_once_and_no_others(self) -> None:
        assert sorted(record.replica for record in self.current().replicas) == sorted(self.alive_until)

    @invariant()
    def models_are_those_of_the_replicas(self) -> None:
        assert set(self.current().models) == {record.ref for record in self.current().replicas}

    @invariant()
    def number_names_one_snapshot(self) -> None:
        current = self.current()
        name = current.epoch, current.number
        if name not in self.handed_out:
            self.handed_out[name] = current, current.model_dump_json()
        assert self.handed_out[name][0] is current

    def current(self) -> Snapshot:
        return self.runner.run(self.coordinator.snapshot())


TestAnyOrderOfVerbs = AnyOrderOfVerbs.TestCase
TestAnyOrderOfVerbs.settings = hypothesis_settings(max_examples=50, stateful_step_count=40, deadline=None)
