"""What shadows have shown, over gateways that come and go, and lives of the coordinator."""

from typing import Any

import orjson
import pytest

from cluster import shadows
from cluster.coordinator import Coordinator
from cluster.events import EventKind
from cluster.records import Snapshot
from cluster.shadows import ShadowNotFound
from judging.comparison import compare
from judging.shadow_tally import ShadowTally
from judging.shadow_trial import trial_of
from nstarx.spec.route import RoutesDocument
from tests.cluster.samples import Clock
from tests.judging.shadows import iris, pair

pytestmark = pytest.mark.anyio

SHADOW = "iris@1.1.0"
LENIENT = {"min_compared": 20, "max_mismatch_percent": 20, "max_error_percent": 20, "max_latency_ratio": None}


def document(**parts: Any) -> RoutesDocument:
    shadow = {"version": SHADOW, "ready": LENIENT, **parts}
    route = {"model": "iris", "split": {"weighted": {"iris@1.0.0": 1}}, "shadows": [shadow]}
    return RoutesDocument.model_validate({"routes": [route]})


def trials(count: int, of: RoutesDocument | None = None, resets: int = 0) -> dict[str, Any]:
    """A gateway's report of so many equal pairs."""
    [route] = (of or document()).routes
    [spec] = route.shadows
    tally = ShadowTally(spec.examples, sampled=count)
    for number in range(count):
        made = pair(f"r{number}", iris(), iris())
        tally.add(made, compare(made.primary, made.shadow, spec), spec)
    heard = {"route": "iris", "ref": SHADOW, "trial": trial_of(route, spec, resets)}
    return {"tallies": [], "trials": [heard | {"tally": orjson.dumps(tally.document())}]}


@pytest.fixture
async def coordinator() -> Coordinator:
    begun = Coordinator(clock=Clock())
    for gateway in ("g1", "g2"):
        await begun.join(gateway, Snapshot())
    await begun.apply_routes(document())
    return begun


async def seen(coordinator: Coordinator) -> int:
    return (await coordinator.shadow("iris", SHADOW)).sampled


async def ready(coordinator: Coordinator) -> list[str | None]:
    """Shadows that were told to be ready."""
    coordinator.tick(1000.0)
    return [event.version for event in await coordinator.events(0) if event.kind is EventKind.SHADOW_READY]


async def test_gateways_are_added_up_and_each_counts_once(coordinator: Coordinator) -> None:
    assert [(route, report.sampled) for route, report in await coordinator.shadows()] == [("iris", 0)]
    await coordinator.report("g1", trials(5))
    await coordinator.report("g2", trials(10))
    await coordinator.report("g1", trials(7))
    assert await seen(coordinator) == 17
    await coordinator.report("g1", {"tallies": []})
    assert await seen(coordinator) == 17
    assert "trials" not in (await coordinator.reports())["g1"]


async def test_what_gateways_counted_stays_when_they_leave_or_fall_silent(coordinator: Coordinator) -> None:
    await coordinator.report("g1", trials(5))
    await coordinator.report("g2", trials(10))
    await coordinator.leave_gateway("g1")
    coordinator.tick(1000.0)
    assert await seen(coordinator) == 15
    coordinator._clock.now += 100  # type: ignore[attr-defined]
    coordinator.tick(1100.0)
    assert await coordinator.members() == ()
    assert await seen(coordinator) == 15
    await coordinator.join("g2", Snapshot())
    await coordinator.report("g2", trials(12))
    assert await seen(coordinator) == 17


async def test_gateways_that_come_and_go_for_ever_take_no_more_room(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "MOST_GATEWAYS", 4)
    for number in range(20):
        await coordinator.join(f"new-{number}", Snapshot())
        await coordinator.report(f"new-{number}", trials(1))
    assert await seen(coordinator) == 20
    [shadow] = coordinator._shadows._shadows.values()
    assert len(shadow.by_gateway) == 4


async def test_ready_is_told_once_in_a_trial(coordinator: Coordinator) -> None:
    await coordinator.report("g1", trials(19))
    assert await ready(coordinator) == []
    await coordinator.report("g2", trials(10))
    assert await ready(coordinator) == [SHADOW]
    await coordinator.report("g2", trials(30))
    assert await ready(coordinator) == [SHADOW]
    await coordinator.reset_shadow("iris", SHADOW)
    await coordinator.report("g2", trials(30))
    assert (await ready(coordinator), await seen(coordinator)) == ([SHADOW], 0)
    await coordinator.report("g2", trials(30, resets=1))
    assert await ready(coordinator) == [SHADOW, SHADOW]


async def test_next_life_knows_resets_and_what_was_told(coordinator: Coordinator) -> None:
    await coordinator.reset_shadow("iris", SHADOW)
    await coordinator.report("g1", trials(30, resets=1))
    assert await ready(coordinator) == [SHADOW]
    held, events = await coordinator.snapshot(), await coordinator.events(0)
    assert held.shadow_resets == {"iris": {SHADOW: 1}}
    born = Coordinator(clock=Clock())
    await born.join("g1", held, events=events)
    await born.report("g1", trials(30))
    assert await seen(born) == 0
    await born.report("g1", trials(30, resets=1))
    assert (await seen(born), await ready(born)) == (30, [SHADOW])


async def test_limits_that_change_are_judged_again_and_other_rules_forget(coordinator: Coordinator) -> None:
    await coordinator.report("g1", trials(19))
    await coordinator.apply_routes(document(ready={**LENIENT, "min_compared": 10}))
    assert (await ready(coordinator), await seen(coordinator)) == ([SHADOW], 19)
    await coordinator.apply_routes(document(compare=False))
    assert await seen(coordinator) == 0
    await coordinator.report("g1", trials(19))
    assert await seen(coordinator) == 0


async def test_trial_that_can_not_be_read_costs_only_itself(coordinator: Coordinator) -> None:
    report = trials(5)
    report["trials"][0]["tally"] = b'{"from": "another build"}'
    await coordinator.report("g1", {**report, "snapshot": 7})
    assert (await coordinator.reports())["g1"]["snapshot"] == 7
    assert await seen(coordinator) == 0


async def test_shadow_that_is_not_there_is_said_so(coordinator: Coordinator) -> None:
    with pytest.raises(ShadowNotFound, match=r"route 'iris' has no shadow iris@9\.0\.0"):
        await coordinator.shadow("iris", "iris@9.0.0")
    with pytest.raises(ShadowNotFound):
        await coordinator.reset_shadow("digits", SHADOW)
    await coordinator.apply_routes(RoutesDocument())
    assert await coordinator.shadows() == ()
