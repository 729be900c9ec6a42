"""What every form of the coordinator promises to gateways, replicas and the command line."""

import asyncio
from pathlib import Path

import pytest

from cluster.coordination import Coordination, CoordinatorUnavailable, NotJoined, RoutesSeed
from cluster.events import EventKind
from cluster.experiments import ExperimentConflict, ExperimentNotFound, Exposed
from cluster.records import CachePurge, Snapshot
from cluster.shadows import ShadowNotFound
from judging.experiment import Recording
from nstarx.errors import Conflict, InvalidConfiguration, VersionNotFound
from nstarx.spec.experiment import InvalidOutcome, OutcomeRecord
from nstarx.spec.route import RoutesDocument
from tests.cluster.samples import IRIS, IRIS_BOTH, LABEL, replica, spec

pytestmark = pytest.mark.anyio


async def test_replica_that_registers_reaches_a_watching_gateway(coordination: Coordination) -> None:
    first = await coordination.join("g1", Snapshot())
    watch = asyncio.create_task(coordination.watch("g1", first.number, timeout_s=10))
    assert await coordination.register(replica("r1"), spec()) == {}
    seen = await watch
    assert seen is not None
    assert seen == await coordination.snapshot()
    assert (seen.number, seen.epoch) == (first.number + 1, first.epoch)
    assert (seen.replicas, seen.models) == ((replica("r1"),), {"iris@1.0.0": spec()})


async def test_watch_answers_at_once_when_outdated_and_nothing_when_nothing_changes(coordination: Coordination) -> None:
    current = await coordination.join("g1", Snapshot())
    assert await coordination.watch("g1", current.number, timeout_s=0) is None
    assert await coordination.watch("g1", current.number - 1, timeout_s=10) == current


async def test_gateway_that_has_not_joined_is_told_so(coordination: Coordination) -> None:
    with pytest.raises(NotJoined) as watching:
        await coordination.watch("g1", 0, timeout_s=10)
    with pytest.raises(NotJoined, match="join again"):
        await coordination.report("g1", {"requests": 1})
    assert (watching.value.status, watching.value.code) == (409, "not_joined")


async def test_replica_lives_until_it_leaves(coordination: Coordination) -> None:
    assert not (await coordination.beat("r1")).known
    await coordination.register(replica("r1"), spec())
    assert (await coordination.beat("r1")).known
    await coordination.leave("r1")
    await coordination.leave("r1")
    assert not (await coordination.beat("r1")).known
    left = await coordination.snapshot()
    assert (left.replicas, left.models) == ((), {})


async def test_replica_with_the_spec_of_another_version_is_refused(coordination: Coordination) -> None:
    with pytest.raises(InvalidConfiguration, match=r"serves iris@1\.0\.0, but its spec is of iris@2\.0\.0"):
        await coordination.register(replica("r1"), spec("iris@2.0.0"))
    assert (await coordination.snapshot()).replicas == ()


async def test_routes_are_applied_read_and_applied_again_without_a_change(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec())
    applied = await coordination.apply_routes(IRIS)
    assert (applied.changed, applied.warnings) == (True, ())
    assert await coordination.routes() == (IRIS, applied.etag)
    assert await coordination.apply_routes(IRIS) == applied.model_copy(update={"changed": False})


async def test_writer_whose_etag_is_outdated_is_refused_with_both_etags(coordination: Coordination) -> None:
    _, read = await coordination.routes()
    written = await coordination.apply_routes(IRIS, if_match=read)
    with pytest.raises(Conflict) as refused:
        await coordination.apply_routes(IRIS_BOTH, if_match=read)
    error = refused.value
    assert (error.status, error.code) == (412, "conflict")
    assert error.sentence == str(error)
    assert read in error.sentence
    assert written.etag in error.sentence
    assert await coordination.routes() == (IRIS, written.etag)


async def test_dry_run_says_what_would_be_and_changes_nothing(coordination: Coordination) -> None:
    before = await coordination.snapshot()
    tried = await coordination.apply_routes(IRIS, dry_run=True)
    assert await coordination.snapshot() == before
    done = await coordination.apply_routes(IRIS)
    assert tried == done.model_copy(update={"number": before.number})
    assert tried.changed


async def test_route_ahead_of_its_version_is_accepted_with_a_warning(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec())
    applied = await coordination.apply_routes(IRIS_BOTH)
    assert applied.warnings == (
        "route 'iris' names iris@2.0.0, which has no live replica; it answers once one registers",
    )


async def test_changed_settings_reach_running_and_new_replicas(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec(settings={"threshold": 0.5, "words": {"yes": 1, "no": 0}}))
    assert (await coordination.beat("r1")).settings == {}
    applied = await coordination.apply_settings("iris@1.0.0", {"threshold": None, "words": {"maybe": 2}})
    wanted = {"words": {"yes": 1, "no": 0, "maybe": 2}}
    assert applied.changed
    assert (await coordination.beat("r1")).settings == wanted
    assert await coordination.register(replica("r2"), spec()) == wanted
    assert (await coordination.snapshot()).settings == {"iris@1.0.0": wanted}
    again = await coordination.apply_settings("iris@1.0.0", {"words": {"maybe": 2}})
    assert again == (await coordination.apply_settings("iris@1.0.0", {}))
    assert (again.changed, again.etag) == (False, applied.etag)


async def test_what_callers_do_to_their_copies_of_settings_stays_with_them(coordination: Coordination) -> None:
    patch = {"words": {"yes": 1}}
    await coordination.register(replica("r1"), spec())
    await coordination.apply_settings("iris@1.0.0", patch)
    patch["words"]["yes"] = 2
    (await coordination.beat("r1")).settings["words"]["yes"] = 3
    assert (await coordination.beat("r1")).settings == {"words": {"yes": 1}}


async def test_settings_of_a_version_without_replicas_are_refused(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec())
    with pytest.raises(VersionNotFound, match=r"no version '2\.0\.0' here; its versions are: 1\.0\.0"):
        await coordination.apply_settings("iris@2.0.0", {"threshold": 1})


async def test_changed_settings_can_be_changed_back_while_no_replica_is_left(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec())
    await coordination.apply_settings("iris@1.0.0", {"hang": True})
    await coordination.leave("r1")
    await coordination.apply_settings("iris@1.0.0", {"hang": False})
    assert await coordination.register(replica("r2"), spec()) == {"hang": False}


async def test_settings_that_are_not_json_are_refused(coordination: Coordination) -> None:
    await coordination.register(replica("r1"), spec())
    with pytest.raises(InvalidConfiguration, match=r"settings of iris@1\.0\.0: .*send a JSON object"):
        await coordination.apply_settings("iris@1.0.0", {"threshold": {1, 2}})


async def test_what_a_gateway_holds_outlives_the_coordinator(coordination: Coordination) -> None:
    held = Snapshot(number=41, epoch="former life", routes=IRIS.routes, replicas=(replica("r1"),), seed="digest")
    await coordination.register(replica("r2"), spec())
    joined = await coordination.join("g1", held)
    assert joined.number == 42
    assert joined.epoch != held.epoch
    assert (joined.routes, joined.seed) == (IRIS.routes, "digest")
    assert {record.replica for record in joined.replicas} == {"r1", "r2"}
    assert await coordination.join("g2", held) == joined


async def test_seed_is_taken_once_so_that_live_changes_outlive_a_restarted_gateway(coordination: Coordination) -> None:
    assert (await coordination.join("g1", Snapshot(), RoutesSeed.of(IRIS))).routes == IRIS.routes
    await coordination.apply_routes(IRIS_BOTH)
    assert (await coordination.join("g2", Snapshot(), RoutesSeed.of(IRIS))).routes == IRIS_BOTH.routes


async def test_reports_and_members_are_those_of_joined_gateways(coordination: Coordination) -> None:
    await coordination.join("g1", Snapshot())
    await coordination.join("g2", Snapshot())
    await coordination.report("g1", {"requests": 1})
    await coordination.report("g1", {"requests": 2})
    assert await coordination.reports() == {"g1": {"requests": 2}}
    assert [member.gateway for member in await coordination.members()] == ["g1", "g2"]
    assert all(0 <= member.age_s < 30 for member in await coordination.members())
    await coordination.leave_gateway("g1")
    assert await coordination.reports() == {}
    assert [member.gateway for member in await coordination.members()] == ["g2"]


async def test_loss_of_an_unknown_replica_changes_nothing(coordination: Coordination) -> None:
    before = await coordination.snapshot()
    await coordination.report_loss("r1")
    assert await coordination.snapshot() == before


async def test_purge_of_caches_reaches_a_watching_gateway_and_is_told_as_an_event(coordination: Coordination) -> None:
    first = await coordination.join("g1", Snapshot())
    watch = asyncio.create_task(coordination.watch("g1", first.number, timeout_s=10))
    told = await coordination.purge_caches("version:iris@1.0.0", "a test asked for it")
    assert await watch == told
    assert told.purges == (CachePurge(number=told.number, key="version:iris@1.0.0"),)
    everything = await coordination.purge_caches(None, "a test asked for more")
    assert [(purge.number, purge.key) for purge in everything.purges] == [
        (told.number, "version:iris@1.0.0"),
        (everything.number, None),
    ]
    events = [event for event in await coordination.events(0) if event.kind == "CachePurged"]
    assert [event.details["key"] for event in events] == ["version:iris@1.0.0", None]
    assert events[0].sentence == "cached answers that bear version:iris@1.0.0 are dropped: a test asked for it"


async def test_experiment_is_started_seen_and_stopped(coordination: Coordination, tmp_path: Path) -> None:
    await coordination.join("g1", Snapshot(), state_dir=str(tmp_path / "state"))
    await coordination.apply_routes(LABEL)
    assert [status.state for status in await coordination.experiments()] == ["idle"]
    started = (await coordination.start_experiment("label")).started
    assert started is not None
    snapshot = await coordination.snapshot()
    assert snapshot.trials["label"].runs
    [route] = snapshot.routes
    assert route.split.weights == {"iris@1.0.0": 1.0, "iris@1.1.0": 1.0}
    assigned = Exposed("label", started, route.split.weights, {"u1": "iris@1.0.0", "u2": "iris@1.1.0"})
    for _ in range(2):
        await coordination.hand_in("g1", 1, (assigned,))
    outcomes = tuple(OutcomeRecord(assignment=u, metric="accepted", value=1) for u in ("u1", "u1", "u3"))
    recordings = await coordination.report_outcomes("label", outcomes)
    assert recordings == (Recording.COUNTED, Recording.DUPLICATE, Recording.WAITING)
    assert (await coordination.stop_experiment("label")).assigned == 2
    status = await coordination.experiment("label")
    assert (status.state, status.outcomes, status.waiting) == ("stopped", 1, 1)
    [route] = (await coordination.snapshot()).routes
    assert route.split.weights == {"iris@1.0.0": 1.0, "iris@1.1.0": 0.0}
    kinds = [event.kind for event in await coordination.events(0)]
    assert kinds.count(EventKind.EXPERIMENT_STARTED) == kinds.count(EventKind.EXPERIMENT_STOPPED) == 1


async def test_a_coordinator_that_no_gateway_has_joined_does_not_say_that_there_are_no_experiments(
    coordination: Coordination,
) -> None:
    outcome = OutcomeRecord(key="u", metric="accepted", value=1)
    for call in (
        coordination.experiments(),
        coordination.experiment("label"),
        coordination.start_experiment("label"),
        coordination.stop_experiment("label"),
        coordination.report_outcomes("label", (outcome,)),
    ):
        with pytest.raises(CoordinatorUnavailable):
            await call


async def test_what_experiments_refuse_is_said(coordination: Coordination) -> None:
    await coordination.join("g1", Snapshot())
    with pytest.raises(ExperimentNotFound):
        await coordination.experiment("label")
    with pytest.raises(NotJoined):
        await coordination.hand_in("g2", 1, ())
    await coordination.apply_routes(LABEL)
    with pytest.raises(ExperimentConflict, match="never been started"):
        await coordination.report_outcomes("label", (OutcomeRecord(key="u", metric="accepted", value=1),))
    await coordination.start_experiment("label")
    with pytest.raises(InvalidOutcome, match=r"outcomes\.0: 'label' measures no 'clicks'"):
        await coordination.report_outcomes("label", (OutcomeRecord(key="u", metric="clicks", value=1),))
    [label] = LABEL.experiments
    changed = RoutesDocument(routes=LABEL.routes, experiments=(label.model_copy(update={"alpha": 0.2}),))
    with pytest.raises(ExperimentConflict, match="`nstarx experiments stop label` first"):
        await coordination.apply_routes(changed, dry_run=True)


async def test_shadows_are_reported_by_name_and_reset_for_every_gateway(coordination: Coordination) -> None:
    shadows = {"shadows": [{"version": "iris@2.0.0"}]}
    route = IRIS.routes[0].model_dump(mode="json", exclude_defaults=True) | shadows
    await coordination.apply_routes(RoutesDocument.model_validate({"routes": [route]}))
    [(name, report)] = await coordination.shadows()
    assert (name, report.version, report.verdict) == ("iris", "iris@2.0.0", "not_enough_data")
    assert await coordination.shadow("iris", "iris@2.0.0") == report
    applied = await coordination.reset_shadow("iris", "iris@2.0.0")
    snapshot = await coordination.snapshot()
    assert (snapshot.number, snapshot.shadow_resets) == (applied.number, {"iris": {"iris@2.0.0": 1}})
    with pytest.raises(ShadowNotFound, match="nstarx shadow list") as refused:
        await coordination.shadow("iris", "iris@1.0.0")
    assert refused.value.status == 404
