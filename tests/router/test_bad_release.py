"""The story of a bad release as people see it, through administration: broken live, demoted, undone, on probation,
healthy again. Real sockets and models; time is passed in."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cluster.coordination import CoordinatorUnavailable
from cluster.coordinator import Coordinator
from nstarx.client import Admin, RemoteError
from tests.story import CANDIDATE, STABLE, Story, metric


@pytest.fixture
def story() -> Iterator[Story]:
    story = Story()
    yield story
    story.close()


def test_bad_release_from_its_first_failure_to_its_return(story: Story) -> None:
    story.ask_well(50)
    story.break_it()
    answers = story.until_demoted()
    rescued = [answer for answer in answers if "x-nstarx-rescued" in answer.headers]
    assert 5 <= len(rescued) <= 50

    [record] = story.admin.demotions()
    assert (record["id"], record["route"], record["version"], record["outcome"]) == (1, "flaky", CANDIDATE, "demoted")
    assert record["standing"]["state"] == "demoted"
    evidence = record["evidence"]
    assert evidence["accused"]["failures"] >= 5
    assert evidence["statistic"] >= evidence["threshold"]
    assert set(evidence["first_failing"]) <= {answer.headers["x-request-id"] for answer in rescued}
    assert story.admin.demotion(1) == record
    assert story.kinds()[-1] == "Demoted"

    named = {"version": CANDIDATE, "role": "candidate"}
    story.plane.until(lambda: metric(story.admin, "nstarx_rescues_total", **named) == len(rescued))
    assert metric(story.admin, "nstarx_requests_total", role="rescue", code="200") == len(rescued)
    assert metric(story.admin, "nstarx_version_state", version=CANDIDATE, state="demoted") == 1
    assert metric(story.admin, "nstarx_version_state") == 2
    assert metric(story.admin, "nstarx_version_share", version=CANDIDATE) == 0
    assert metric(story.admin, "nstarx_events_total", kind="Demoted") == 1
    assert metric(story.admin, "nstarx_rescues_refused_total") == 0


def test_version_that_was_mended_comes_back_step_by_step(story: Story) -> None:
    story.break_it()
    story.until_demoted()
    story.break_it(error_rate=0.0)
    story.pass_time(29)
    assert story.state() == "demoted"
    shares = []
    for _ in range(3):
        story.pass_time(31)
        shares += [round(share, 3) for share in story.shares()]
        story.ask_well(300)
    assert shares == [2.5, 2.5, 5, 5, 10, 10]
    assert story.state() == "healthy"
    assert story.kinds() == ["Demoted", "Probation", "Probation", "Recovered"]


def test_version_that_is_still_broken_is_demoted_again_for_longer(story: Story) -> None:
    story.break_it()
    story.until_demoted()
    story.pass_time(31)
    assert story.state() == "probation"
    story.until_demoted()
    first, second = story.admin.demotions()
    assert second["until"] - second["time"] == pytest.approx(2 * (first["until"] - first["time"]), abs=1)
    assert second["standing"]["demotions"] == 2


def test_undo_gives_the_version_its_traffic_back_at_once_and_is_recorded(story: Story) -> None:
    story.break_it()
    story.until_demoted()
    story.break_it(error_rate=0.0)
    undone = story.admin.undo_demotion(1)
    assert undone["undone"] is not None
    assert undone["standing"]["state"] == "healthy"
    for gateway in story.gateways:
        story.plane.settle(gateway)
    assert story.shares() == [10, 10]
    versions = [answer.headers["x-nstarx-version"] for answer in story.ask_well(100)]
    assert versions.count(CANDIDATE) == 20
    assert story.kinds()[-1] == "DemotionUndone"
    with pytest.raises(RemoteError, match="on route 'flaky' that could be undone"):
        story.admin.undo_demotion(1)


@pytest.mark.parametrize("ask", [Admin.demotion, Admin.undo_demotion])
def test_demotion_that_never_was_is_not_found(story: Story, ask: Any) -> None:
    with pytest.raises(RemoteError, match="there is no demotion 7; `nstarx demotions list`") as refused:
        ask(story.admin, 7)
    assert refused.value.status == 404


def test_sticky_users_of_the_stable_version_never_notice(story: Story) -> None:
    users = {user: story.ask(1, **{"X-User": user})[0].headers["x-nstarx-version"] for user in map(str, range(60))}
    assert set(users.values()) == {STABLE, CANDIDATE}
    story.break_it()
    story.until_demoted()
    for user, before in users.items():
        for answer in story.ask(1, **{"X-User": user}):
            assert (answer.status, answer.headers["x-nstarx-version"]) == (200, STABLE)
            assert "x-nstarx-rescued" not in answer.headers
        assert before in (STABLE, CANDIDATE)
    story.break_it(error_rate=0.0)
    story.admin.undo_demotion(1)
    for gateway in story.gateways:
        story.plane.settle(gateway)
    again = {user: story.ask(1, **{"X-User": user})[0].headers["x-nstarx-version"] for user in users}
    assert again == users


def test_explanation_tells_of_the_demotion(story: Story) -> None:
    story.break_it()
    story.until_demoted()
    told = story.admin.explain({"model": "flaky", "headers": {"x-user": "ann"}})
    assert told["sentence"] == (
        f"The route's split decides. {CANDIDATE} is demoted. By header 'x-user' this caller gets {STABLE} each time."
    )
    with pytest.raises(RemoteError, match="model 'none' is not served here"):
        story.admin.explain({"model": "none"})
    with pytest.raises(RemoteError, match="heders: unknown key"):
        story.admin.explain({"model": "flaky", "heders": {}})


def test_status_shows_what_is_wanted_and_what_is(story: Story) -> None:
    story.break_it()
    story.until_demoted()
    rows = {row["version"]: row for row in story.admin.status()["shares"]}
    assert {ref: (row["configured"], row["share"]) for ref, row in rows.items()} == {
        STABLE: (0.9, 1),
        CANDIDATE: (0.1, 0),
    }
    assert "failed" in rows[CANDIDATE]["reason"]
    routes, _ = story.admin.routes()
    assert routes["routes"][0]["split"]["canary"]["percent"] == 10


def change_route(story: Story, **parts: Any) -> None:
    document, _ = story.admin.routes()
    document["routes"][0].update(parts)
    story.admin.apply_routes(document)
    for gateway in story.gateways:
        story.plane.settle(gateway)


def test_spent_budget_for_rescues_is_told_once(story: Story) -> None:
    change_route(story, demotion=None, rescue={"budget_percent": 0, "burst": 2})
    story.break_it()
    answers = story.ask(100)
    assert sum(answer.status == 500 for answer in answers) == 20 - 4
    assert sum("x-nstarx-rescued" in answer.headers for answer in answers) == 4
    story.plane.until(lambda: metric(story.admin, "nstarx_rescues_refused_total") == 16)
    story.plane.until(lambda: story.kinds().count("RescuesExhausted") == 2)
    told = [event for event in story.admin.events() if event["kind"] == "RescuesExhausted"]
    assert {event["gateway"] for event in told} == {gateway.id for gateway in story.gateways}
    assert "0 % of its requests and 2 more" in told[0]["sentence"]


def test_demotion_does_not_fill_the_budget_for_rescues_again(story: Story) -> None:
    change_route(story, rescue={"budget_percent": 0, "burst": 3})
    [before, _] = [gateway.compiler.rescues["flaky"][1] for gateway in story.gateways]
    story.break_it()
    story.ask(100)
    story.plane.until(lambda: story.state() == "demoted")
    assert story.gateways[0].compiler.rescues["flaky"][1] is before
    assert before.taken == 3


def test_version_that_is_only_observed_stays_and_the_verdict_is_kept(story: Story) -> None:
    change_route(story, demotion={"enforce": False})
    story.break_it()
    story.ask_well(100)
    story.plane.until(lambda: bool(story.admin.demotions()))
    assert story.shares() == [10, 10]
    [record] = story.admin.demotions()
    assert record["outcome"] == "observed"
    assert "It stays: the policy says enforce: false." in record["standing"]["reason"]
    assert story.kinds() == ["DemotionObserved"]
    with pytest.raises(RemoteError, match="could be undone"):
        story.admin.undo_demotion(record["id"])


def test_last_healthy_version_stays_and_that_is_said_loudly(story: Story) -> None:
    """Two versions of equal rank; the first is demoted, and then the other one fails too."""
    change_route(story, split={"weighted": {STABLE: 50, CANDIDATE: 50}})
    story.ask_well(50)
    story.break_it()
    story.ask(50)
    story.plane.until(lambda: story.state() == "demoted")
    story.break_it(STABLE)
    assert {answer.status for answer in story.ask(100)} == {500}
    assert {answer.headers["x-nstarx-version"] for answer in story.ask(20)} == {STABLE}
    story.plane.until(lambda: "DemotionRefused" in story.kinds())
    _, *records = story.admin.demotions()
    assert {record["outcome"] for record in records} == {"refused"}
    assert "is the last healthy version of this route" in records[0]["sentence"]


def test_rules_count_what_they_decide_about(story: Story) -> None:
    rule = {"name": "testers", "match": {"headers": {"x-team": "qa"}}, "split": {"weighted": {CANDIDATE: 1}}}
    change_route(story, rules=[rule])
    story.ask(3, **{"X-Team": "qa"})
    story.ask(2)
    story.plane.until(lambda: metric(story.admin, "nstarx_rule_requests_total", rule="testers") == 6)


def test_gateways_go_by_their_own_verdicts_while_the_coordinator_is_away(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]
    accuse, report = Coordinator.accuse, Coordinator.report

    async def heard(*arguments: Any) -> Any:
        if away:
            raise CoordinatorUnavailable("it is away in this test")
        return await accuse(*arguments)

    async def reported(*arguments: Any) -> None:
        if not away:
            await report(*arguments)

    monkeypatch.setattr(Coordinator, "accuse", heard)
    monkeypatch.setattr(Coordinator, "report", reported)
    story.break_it()
    story.ask_well(200)
    assert story.shares() == [0, 0]
    assert not story.admin.demotions()
    [row] = [row for row in story.admin.status()["shares"] if row["version"] == CANDIDATE]
    assert (row["state"], row["share"]) == ("demoted", 0)
    assert row["reason"] == "This gateway has found it guilty; the coordinator has yet to decide."
    away.clear()
    story.plane.until(lambda: bool(story.admin.demotions()))
    story.plane.until(lambda: not any(gateway.blown for gateway in story.gateways))
    assert story.shares() == [0, 0]


# Events


def test_events_are_listed_from_a_number_on(story: Story) -> None:
    events = story.admin.events()
    assert [event["number"] for event in events] == sorted(event["number"] for event in events)
    assert story.admin.events(after=events[2]["number"]) == events[3:]
    assert story.admin.events(after=events[2]["number"], limit=1) == events[3:4]
    assert story.admin.events(after=10**17) == []


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 30, "²"])
def test_number_that_is_none_is_refused(story: Story, after: str) -> None:
    with pytest.raises(RemoteError, match="is not a whole number"):
        story.admin.ask("GET", "/events", params={"after": after})


def test_events_are_followed_as_they_happen_and_from_where_a_client_stopped(story: Story) -> None:
    story.admin.apply_settings(CANDIDATE, {"error_rate": 0.5})
    before = story.admin.events()
    following = story.admin.follow_events()
    assert [next(following) for _ in before] == before
    following.close()
    story.admin.apply_settings(CANDIDATE, {"error_rate": 0.0})
    again = story.admin.follow_events(after=before[-1]["number"])
    event = next(again)
    assert (event["kind"], event["version"]) == ("SettingsApplied", CANDIDATE)
    again.close()


def test_stream_of_events_ends_when_its_gateway_drains(story: Story) -> None:
    headers = {"accept": "text/event-stream", "last-event-id": "0"}
    url = f"http://127.0.0.1:{story.gateways[0].spec.admin_port}/events"
    with httpx.stream("GET", url, headers=headers, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines).startswith("id: ")
        story.gateways[0].draining = True
        assert list(lines)
    story.gateways[0].draining = False
