"""What people type when a release is bad: what they see, and what they can do about it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from nstarx.cli.app import main
from tests.story import CANDIDATE, STABLE, Story

Run = Callable[..., str]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """A canary whose candidate is demoted, and was found so by these tests' first request to it."""
    story = Story()
    story.break_it()
    story.until_demoted()
    yield story
    story.close()


@pytest.fixture
def run(story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A command against the story's gateway, as a person types it: what it prints. Raises AssertionError with what it
    says on standard error where it fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("NSTARX_ADMIN_URL", story.admin.url)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["nstarx", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        printed = capsys.readouterr()
        assert not done.value.code, printed.err
        return printed.out

    return run


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def row(text: str, *begins: str) -> list[str]:
    """The row of a table that begins with these cells."""
    return next(cells(line) for line in text.splitlines() if cells(line)[: len(begins)] == list(begins))


# Demotions


def test_list_shows_each_verdict_on_a_line(run: Run) -> None:
    out = run("demotions", "list")
    assert row(out, "1")[2:] == ["flaky", CANDIDATE, "demoted", "consecutive_failures", "demoted"]
    assert [record["id"] for record in orjson.loads(run("demotions", "list", "-o", "json"))] == [1]


def test_show_gives_all_that_a_verdict_rests_on(story: Story, run: Run) -> None:
    evidence = story.admin.demotion(1)["evidence"]
    out = run("demotions", "show", "1")
    failures, calls = evidence["accused"]["failures"], evidence["stable"]["calls"]
    assert out.startswith(f"{CANDIDATE} is out of route 'flaky' for 30 s: {CANDIDATE} failed {failures} calls in a row")
    assert row(out, "accused") == ["accused", CANDIDATE, str(failures), str(failures), "100 %", "0", "0", "-"]
    assert row(out, "beside") == ["beside", STABLE, str(calls), "0", "0 %", "0", "0", "-"]
    grown = f"to {evidence['statistic']:.2g} times the stake, where {evidence['threshold']:.2g} is enough"
    assert row(out, "evidence")[1].endswith(grown)
    assert row(out, "borne")[1] == "5 %"
    for id in evidence["first_failing"]:
        assert id in out
    assert row(out, "found by")[1].startswith(("gateway-", "the counts of all gateways"))
    assert row(out, "now")[1].startswith("demoted ")
    assert yaml.safe_load(run("demotions", "show", "1", "-o", "yaml"))["evidence"] == evidence


def test_status_says_loudly_who_is_out_and_what_everybody_has(run: Run) -> None:
    first, *rest = run("status").splitlines()
    assert first.startswith(f"{CANDIDATE} is DEMOTED on route 'flaky' until ")
    assert "failed" in first
    table = "\n".join(rest)
    assert row(table, "flaky", "-", STABLE)[3:] == ["stable", "90 %", "100 %", "healthy"]
    assert row(table, "flaky", "-", CANDIDATE)[3:] == ["candidate", "10 %", "0 %", "demoted"]


# Events


def test_events_are_lines_for_people_or_for_machines(story: Story, run: Run) -> None:
    lines = run("events").splitlines()
    assert len(lines) == len(story.admin.events())
    assert "  Demoted " in lines[-1]
    events = [orjson.loads(line) for line in run("events", "--output", "json").splitlines()]
    assert events == story.admin.events()
    assert run("events", "-n", "1").splitlines() == lines[-1:]
    assert run("events", "-n", "0") == ""
    assert run("events", "--after", str(events[-3]["number"])).splitlines() == lines[-2:]


def test_followed_events_go_on_until_ctrl_c(story: Story, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def then_ctrl_c(self: Any, after: int) -> Iterator[dict[str, Any]]:
        assert after == story.admin.events()[-1]["number"]
        yield {**story.admin.events()[-1], "sentence": "news\n[red]"}
        raise KeyboardInterrupt

    monkeypatch.setattr("nstarx.client.Admin.follow_events", then_ctrl_c)
    assert run("events", "--follow", "-n", "0").endswith("  news [red]\n")


# Explanations


def test_explanation_shows_rules_versions_and_a_sentence(story: Story, run: Run) -> None:
    out = run("routes", "explain", "flaky", "-H", "X-User: ann")
    assert out.startswith(
        f"The route's split decides. {CANDIDATE} is demoted. By header 'x-user' this caller gets {STABLE}"
    )
    assert row(out, STABLE) == [STABLE, "stable", "100 %", "healthy", "1"]
    direct = run("routes", "explain", CANDIDATE)
    assert direct.startswith(f"The path names the version. {CANDIDATE} is demoted. {CANDIDATE} answers.")
    document = orjson.loads(run("routes", "explain", "flaky", "--query", "a=b", "--cookie", "c=d", "-o", "json"))
    assert document["path"] == "/v2/models/flaky/infer"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-H", "x-user"], "--header 'x-user': write it like 'x-user: ann'"),
        (["--query", "=x"], "--query '=x': write it like user=ann"),
        (["--host", "h", "--path-prefix", "/nobody"], "model 'flaky' is not served here; nothing is served yet"),
    ],
)
def test_wrong_question_says_what_to_write(run: Run, options: list[str], said: str) -> None:
    with pytest.raises(AssertionError, match="error: ") as refused:
        run("routes", "explain", "flaky", *options)
    assert said in str(refused.value)


# Shortcuts


@pytest.fixture
def routes(story: Story) -> Iterator[dict[str, Any]]:
    """The route as it is; a test leaves it as it found it."""
    document, _ = story.admin.routes()
    yield document["routes"][0]
    story.admin.apply_routes(document)


def present(story: Story) -> dict[str, Any]:
    return dict(story.admin.routes()[0]["routes"][0])


def test_canary_changes_the_share_and_nothing_else(story: Story, run: Run, routes: dict[str, Any]) -> None:
    out = run("canary", "flaky", "25").splitlines()
    assert out[0].startswith(f"route 'flaky': {CANDIDATE} gets 25 % instead of 10 %; snapshot ")
    assert out[1] == f"warning: route 'flaky' names {CANDIDATE}, which is demoted; `nstarx demotions list` says why"
    wanted = {**routes["split"]["canary"], "percent": 25.0}
    assert present(story) == {**routes, "split": {**routes["split"], "canary": wanted}}
    assert "gets 25 % instead of 25 %, as before" in run("canary", "flaky", "25")


def test_rule_has_a_kill_switch(story: Story, run: Run, routes: dict[str, Any]) -> None:
    rule = {"name": "testers", "match": {}, "split": {"weighted": {STABLE: 1}}}
    story.admin.apply_routes({"routes": [{**routes, "rules": [rule]}]})
    assert "route 'flaky': rule testers is off;" in run("routes", "rule", "flaky", "testers", "off")
    assert present(story)["rules"][0]["enabled"] is False
    assert "route 'flaky': rule testers is off, as before" in run("routes", "rule", "flaky", "testers", "off")
    assert "rule testers is on" in run("routes", "rule", "flaky", "testers", "on")
    assert story.admin.events()[-1]["sentence"] == "rule 'testers' of route 'flaky' is switched on"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["canary", "iris", "5"], "there is no route 'iris'; there are: flaky"),
        (["routes", "switch", "flaky"], "route 'flaky' has no split of kind blue_green; it has: canary"),
        (["routes", "rule", "flaky", "x", "on"], "route 'flaky' has no rule 'x'; its rules are: none"),
        (["demotions", "show", "99"], "there is no demotion 99"),
        (["demotions", "undo", "99"], "there is no demotion 99"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(run: Run, command: list[str], said: str) -> None:
    with pytest.raises(AssertionError, match="error: ") as refused:
        run(*command)
    assert said in str(refused.value)


def test_shortcut_tries_again_when_somebody_was_faster(
    story: Story, run: Run, routes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nstarx.client import Admin

    apply, others = Admin.apply_routes, [5.0]

    def overtaken(self: Admin, document: dict[str, Any], if_match: str | None = None) -> dict[str, Any]:
        if others:
            mine = {**routes, "timeout_s": others.pop()}
            apply(self, {"routes": [mine]})
        return apply(self, document, if_match)

    monkeypatch.setattr(Admin, "apply_routes", overtaken)
    run("canary", "flaky", "30")
    assert (present(story)["timeout_s"], present(story)["split"]["canary"]["percent"]) == (5.0, 30.0)


# Routes as files


def test_routes_are_shown_without_defaults_and_can_be_applied_again(
    story: Story, run: Run, tmp_path: Path, routes: dict[str, Any]
) -> None:
    text = run("routes", "show")
    assert yaml.safe_load(text) == {
        "routes": [
            {
                "model": "flaky",
                "split": {
                    "canary": {"stable": STABLE, "candidate": CANDIDATE, "percent": 10.0},
                    "sticky": {"header": "x-user"},
                },
                "demotion": {"min_requests": 5, "probation_percent": 25.0},
            }
        ]
    }
    (tmp_path / "routes.yaml").write_text(text)
    assert "routes unchanged" in run("routes", "apply", "routes.yaml")
    assert row(run("routes", "show", "-o", "table"), "flaky", "-", CANDIDATE)[4:] == ["10 %", "0 %", "demoted"]


def test_undo_is_the_end_of_it(story: Story, run: Run) -> None:
    story.break_it(error_rate=0.0)
    out = run("demotions", "undo", "1")
    assert out.startswith(f"{CANDIDATE} has its traffic on route 'flaky' back; verdicts against it are only reported")
    assert row(run("demotions", "list"), "1")[4:] == ["demoted, undone", "consecutive_failures", "healthy"]
    assert "DEMOTED" not in run("status")


def test_other_side_answers_after_a_switch(story: Story, run: Run, routes: dict[str, Any]) -> None:
    """The last one here: what a person makes live is no more held to what it did before."""
    split = {"blue_green": {"blue": STABLE, "green": CANDIDATE}}
    story.admin.apply_routes({"routes": [{"model": "flaky", "split": split}]})
    assert f"route 'flaky': green ({CANDIDATE}) answers" in run("routes", "switch", "flaky")
    assert present(story)["split"]["blue_green"]["live"] == "green"
    assert f"route 'flaky': blue ({STABLE}) answers" in run("routes", "switch", "flaky")
    assert "answers, as before" in run("routes", "switch", "flaky", "--to", "blue")
