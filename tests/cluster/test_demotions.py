"""The coordinator over what all gateways count: versions that fail leave traffic, and come back step by step."""

from typing import Any

import pytest

from cluster.coordinator import Coordinator
from cluster.demotions import DemotionNotFound
from cluster.records import Snapshot
from judging.standing import Standing
from judging.verdict import Evidence, Figures
from nstarx.histogram import BUCKETS
from nstarx.spec.route import RoutesDocument
from tests.cluster.samples import Clock, replica, spec

pytestmark = pytest.mark.anyio

STABLE, CANDIDATE = "iris@1.0.0", "iris@2.0.0"


def document(percent: float = 10, **parts: Any) -> RoutesDocument:
    canary = {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}
    return RoutesDocument.model_validate({"routes": [{"model": "iris", "split": {"canary": canary}, **parts}]})


def tally(ref: str, role: str, codes: dict[int, int], failing: tuple[str, ...] = ()) -> dict[str, Any]:
    """A tally as gateways report it."""
    counted: dict[str, Any] = {"route": "iris", "ref": ref, "role": role, "codes": codes, "failing": list(failing)}
    return {**counted, "invalid": 0, "lost": 0, "latency": [0] * BUCKETS}


def counters(candidate: dict[int, int], stable: dict[int, int], failing: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"tallies": [tally(CANDIDATE, "candidate", candidate, failing), tally(STABLE, "stable", stable)]}


EVIDENCE = Evidence(
    rule="consecutive_failures",
    at=0.0,
    window_s=1.0,
    accused=Figures(version=CANDIDATE, calls=5, failures=5),
    statistic=1e12,
    threshold=1e9,
    sentence="iris@2.0.0 failed 5 calls in a row.",
)


class Life:
    """A coordinator with two gateways, and the clocks that it goes by."""

    def __init__(self) -> None:
        self.clock, self.wall = Clock(), Clock(1_800_000_000.0)
        self.coordinator = Coordinator(clock=self.clock, wall=self.wall)
        self.sent: dict[str, tuple[dict[int, int], dict[int, int]]] = {}

    async def begin(self, **parts: Any) -> "Life":
        for gateway in ("g1", "g2"):
            await self.coordinator.join(gateway, Snapshot())
            self.sent[gateway] = ({}, {})
        for name, ref in (("r1", STABLE), ("r2", CANDIDATE)):
            await self.coordinator.register(replica(name, ref), spec(ref))
        await self.coordinator.apply_routes(document(**parts))
        return self

    async def report(self, gateway: str, candidate: dict[int, int], stable: dict[int, int]) -> None:
        """So many more calls, by status."""
        for total, more in zip(self.sent[gateway], (candidate, stable), strict=True):
            for code, number in more.items():
                total[code] = total.get(code, 0) + number
        await self.coordinator.report(gateway, counters(*self.sent[gateway]))

    async def pass_time(self, seconds: float, calls: int = 0) -> None:
        """Second by second, with good calls of both versions in each."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            self.wall.now += 1
            for gateway in self.sent:
                await self.report(gateway, {200: calls}, {200: 9 * calls})
            for name in ("r1", "r2"):
                await self.coordinator.beat(name)
            self.coordinator.tick(self.clock.now)

    async def standing(self) -> Standing:
        snapshot = await self.coordinator.snapshot()
        return snapshot.standings.get("iris", {}).get(CANDIDATE, Standing())

    async def kinds(self) -> list[str]:
        told = ("Replica", "Gateway", "Routes")
        return [e.kind.value for e in await self.coordinator.events(0) if not e.kind.value.startswith(told)]


async def test_failures_that_no_gateway_finds_enough_are_enough_together() -> None:
    life = await Life().begin()
    await life.pass_time(10, calls=20)
    for _ in range(30):
        await life.report("g1", {500: 1, 200: 9}, {200: 90})
        await life.report("g2", {500: 1, 200: 9}, {200: 90})
        await life.pass_time(1)
    assert (await life.standing()).state == "demoted"
    [record] = (await life.coordinator.snapshot()).demotions
    assert (record.outcome, record.gateway, record.version) == ("demoted", None, CANDIDATE)
    assert record.evidence.accused.failures > record.evidence.accused.calls / 20
    assert record.sentence.startswith(f"{CANDIDATE} is out of route 'iris' for 30 s: ")


async def test_demoted_version_gets_a_small_share_then_doubles_then_is_healthy() -> None:
    life = await Life().begin()
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    states = [(await life.standing()).state]
    percents: list[float] = []
    for _ in range(10):
        await life.pass_time(30, calls=10)
        standing = await life.standing()
        states.append(standing.state)
        percents.append(standing.percent)
    assert states[0] == "demoted"
    assert percents[:8] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert states[-1] == "healthy"
    told = await life.kinds()
    assert told == ["Demoted", *["Probation"] * 7, "Recovered"]


async def test_no_calls_are_no_success() -> None:
    life = await Life().begin()
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    await life.pass_time(300)
    standing = await life.standing()
    assert (standing.state, standing.percent) == ("probation", 1)


async def test_version_that_is_demoted_again_and_again_is_given_up() -> None:
    life = await Life().begin(demotion={"max_demotions": 2})
    for _ in range(2):
        await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
        await life.pass_time(60)
    assert (await life.standing()).state == "given_up"
    await life.pass_time(1000)
    assert (await life.standing()).state == "given_up"
    assert (await life.kinds())[-1] == "GivenUp"


async def test_second_accusation_of_a_demoted_version_changes_nothing() -> None:
    life = await Life().begin()
    for gateway in ("g1", "g2"):
        await life.coordinator.accuse(gateway, "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    assert len((await life.coordinator.snapshot()).demotions) == 1


async def test_undo_gives_all_traffic_back_and_a_time_of_grace() -> None:
    life = await Life().begin()
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    assert (await life.coordinator.undo_demotion("iris", CANDIDATE)).state == "healthy"
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 10}, {200: 90}))
    assert (await life.standing()).state == "suspected"
    with pytest.raises(DemotionNotFound, match="could be undone"):
        await life.coordinator.undo_demotion("iris", CANDIDATE)


async def test_stable_version_of_a_canary_is_never_demoted() -> None:
    life = await Life().begin()
    for _ in range(20):
        await life.report("g1", {200: 10}, {500: 90})
        await life.pass_time(1)
    assert not (await life.coordinator.snapshot()).demotions


async def test_shared_trouble_blames_nobody() -> None:
    life = await Life().begin()
    await life.pass_time(10, calls=20)
    for _ in range(30):
        await life.report("g1", {500: 5, 200: 5}, {500: 45, 200: 45})
        await life.pass_time(1)
    assert (await life.standing()).state in ("healthy", "suspected")
    assert "Demoted" not in await life.kinds()


async def test_demotion_outlives_the_coordinator() -> None:
    life = await Life().begin()
    held = await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    events = await life.coordinator.events(0)
    following = Coordinator(clock=life.clock, wall=life.wall)
    adopted = await following.join("g1", held, None, events)
    assert adopted.standings["iris"][CANDIDATE].state == "demoted"
    assert adopted.demotions == held.demotions
    assert {event.sentence for event in events} <= {event.sentence for event in await following.events(0)}
    life.coordinator = following
    await life.coordinator.join("g2", held, None, events)
    await life.pass_time(31)
    assert (await life.standing()).state == "probation"


async def test_new_routes_forget_versions_that_they_do_not_name() -> None:
    life = await Life().begin()
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    await life.coordinator.apply_routes(RoutesDocument())
    assert not (await life.coordinator.snapshot()).standings
    await life.pass_time(2)


async def test_weights_changed_by_people_are_told_with_both_shares() -> None:
    life = await Life().begin()
    await life.coordinator.apply_routes(document(percent=25))
    [event] = [e for e in await life.coordinator.events(0) if e.kind.value == "WeightsChanged"]
    assert event.details == {"before": {STABLE: 90, CANDIDATE: 10}, "after": {STABLE: 75, CANDIDATE: 25}}


async def test_failures_are_judged_when_they_are_reported_and_not_at_the_next_tick() -> None:
    life = await Life().begin()
    for _ in range(10):
        await life.report("g1", {500: 1}, {200: 9})
    assert (await life.standing()).state == "demoted"


async def test_version_is_judged_by_its_calls_in_all_splits_of_a_route() -> None:
    rules = [{"name": "testers", "match": {}, "split": {"weighted": {CANDIDATE: 1}}}]
    life = await Life().begin(rules=rules)
    for n in range(1, 11):
        tallies = [tally(CANDIDATE, "primary", {500: n}), tally(STABLE, "stable", {200: 90})]
        await life.coordinator.report("g1", {"tallies": tallies})
    assert (await life.standing()).state == "demoted"


async def test_newest_memory_of_a_former_life_wins_also_about_standings() -> None:
    life = await Life().begin()
    early = await life.coordinator.snapshot()
    held = await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    following = Coordinator(clock=life.clock, wall=life.wall)
    suspected = {"iris": {CANDIDATE: Standing(state="suspected")}}
    await following.join("g2", early.model_copy(update={"standings": suspected}))
    adopted = await following.join("g1", held)
    assert adopted.standings["iris"][CANDIDATE].state == "demoted"


async def test_what_a_person_undid_in_this_life_outranks_what_gateways_remember() -> None:
    life = await Life().begin()
    held = await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    following = Coordinator(clock=life.clock, wall=life.wall)
    await following.join("g1", held)
    await following.undo_demotion("iris", CANDIDATE)
    later = held.model_copy(update={"number": held.number + 100, "epoch": "another"})
    adopted = await following.join("g2", later)
    assert adopted.standings["iris"][CANDIDATE].state == "healthy"
    [record] = adopted.demotions
    assert record.undone is not None


async def test_records_of_two_lives_are_kept_and_numbered_on() -> None:
    life = await Life().begin()
    held = await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    following = Coordinator(clock=life.clock, wall=life.wall)
    await following.join("g9", Snapshot())
    await following.apply_routes(document())
    life.wall.now += 1
    await following.accuse("g9", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    adopted = await following.join("g1", held.model_copy(update={"number": 1000}))
    assert [record.id for record in adopted.demotions] == [1, 2]
    assert len({record.time for record in adopted.demotions}) == 2


async def test_routes_that_name_a_demoted_version_are_taken_with_a_warning() -> None:
    life = await Life().begin()
    await life.coordinator.accuse("g1", "iris", CANDIDATE, EVIDENCE, counters({500: 5}, {200: 45}))
    applied = await life.coordinator.apply_routes(document(percent=50))
    assert [f"names {CANDIDATE}, which is demoted" in warning for warning in applied.warnings] == [True]
    assert (await life.standing()).state == "demoted"


async def test_rules_that_people_switch_are_told() -> None:
    def ruled(enabled: bool, percent: float = 100) -> RoutesDocument:
        canary = {"stable": STABLE, "candidate": CANDIDATE, "percent": percent}
        rule = {"name": "testers", "match": {}, "split": {"canary": canary}, "enabled": enabled}
        return document(rules=[rule])

    life = await Life().begin()
    for enabled, percent in ((True, 100), (False, 100), (True, 50)):
        await life.coordinator.apply_routes(ruled(enabled, percent))
    told = [e.sentence for e in await life.coordinator.events(0) if e.kind.value in ("FlagChanged", "WeightsChanged")]
    assert told == [
        "rule 'testers' of route 'iris' is switched off",
        "rule 'testers' of route 'iris' is switched on",
        f"rule 'testers' of route 'iris' divides its requests {STABLE} 0, {CANDIDATE} 1 no more, "
        f"but {STABLE} 0.5, {CANDIDATE} 0.5",
    ]
