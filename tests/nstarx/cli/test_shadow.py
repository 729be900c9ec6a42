"""`nstarx shadow`: how a shadow's report looks to people, and how it is asked for."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from judging.comparison import compare
from judging.shadow_report import report
from judging.shadow_tally import ShadowTally
from nstarx.cli.app import app
from nstarx.cli.output import console
from nstarx.cli.shadow import render
from nstarx.client import Admin
from nstarx.errors import InvalidRequest
from nstarx.spec.route import RouteSpec
from tests.in_process import DataPlaneInProcess
from tests.judging.shadows import CLASSES, failed, iris, pair, shadow

SPEC = shadow(tolerances={"label": CLASSES}, attributes=["x-tenant"])


def document(*others: Any, tenant: str = "acme") -> dict[str, Any]:
    tally = ShadowTally(SPEC.examples, sampled=len(others))
    for number, other in enumerate(others):
        made = pair(f"r{number}", iris(), other, values=(tenant,))
        tally.add(made, compare(made.primary, made.shadow, SPEC), SPEC)
    return report(tally, SPEC).model_dump(mode="json")


def rendered(of: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(console, "_width", 200)
    with console.capture() as captured:
        render(of)
    return re.sub(r" +", " ", captured.get())


def test_report_reads_from_verdict_to_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    text = rendered(document(iris(), iris(1), failed(), failed(503), iris(scores=(0.5, 0.5, 0.0))), monkeypatch)
    for line in (
        "shadow iris@1.1.0",
        "Not enough data: 4 pairs say something, and min_compared asks for 1000.",
        "sampled 5",
        "refused 1",
        "shadow answered 500 1",
        "mismatches 66.7 20.8 to 93.9 3",
        "label 1 of 3 (33.3 %) classes 1 - - - - 0",
        "label 0 1 1",
        "x-tenant acme 2 of 3 (66.7 %) 1 of 4 (25 %)",
        "r1 2.500 200 200 label: 1 of 1 classes differ: 0 became 1",
        "r2 5.000 200 500 shadow_failed",
    ):
        assert line in text
    assert re.search(r"p50 \d\.\d\d \d\.\d\d \d\.\d\d", text)
    positions = [text.index(word) for word in ("Not enough", "RATE", "LATENCY", "OUTPUT", "ATTRIBUTE", "EXAMPLE")]
    assert positions == sorted(positions)


def test_report_of_nothing_has_no_empty_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = rendered(document(), monkeypatch)
    assert "mismatches - 0 to 100 0" in text
    assert "p99 - - -" in text
    assert not [word for word in ("OUTPUT", "ATTRIBUTE", "EXAMPLE", "dropped") if word in text]


def test_what_callers_chose_is_not_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "x-tenant [red]acme[/bold] " in rendered(document(iris(), tenant="[red]acme[/bold]"), monkeypatch)


@pytest.fixture(scope="module")
def admin() -> Iterator[str]:
    """The administration port of a gateway with one shadow on one route, and two on a route of a team."""
    plane = DataPlaneInProcess()
    split = {"weighted": {"iris@1.0.0": 1}}
    several = [{"version": "iris@1.1.0"}, {"version": "iris@2.0.0"}]
    routes = [
        {"model": "iris", "split": split, "shadows": several[:1]},
        {"model": "iris", "path_prefix": "/team-a", "split": split, "shadows": several},
    ]
    gateway = plane.gateway(tuple(map(RouteSpec.model_validate, routes)))
    url = f"http://127.0.0.1:{gateway.spec.admin_port}"
    plane.until(lambda: bool(gateway._servers[1:]))
    with Admin(url) as client:
        plane.until(lambda: len(client.shadows()) == 3)
    yield url
    plane.close()


def run(admin: str, *words: str) -> str:
    result = CliRunner().invoke(app, ["shadow", *words, "--admin-url", admin], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return re.sub(r" +", " ", result.output)


def test_shadows_are_listed_reported_and_reset_by_the_names_of_their_routes(
    admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 200)
    text = run(admin, "list")
    assert "iris iris@1.1.0 not enough data 0 0 0 0 0" in text
    assert "/team-a/iris iris@2.0.0 not enough data" in text
    assert "shadow iris@1.1.0" in run(admin, "report", "iris")
    assert "shadow iris@2.0.0" in run(admin, "report", "/team-a/iris", "iris@2.0.0")
    assert "shadow iris@2.0.0 of route '/team-a/iris' begins anew" in run(admin, "reset", "/team-a/iris", "iris@2.0.0")
    assert orjson.loads(run(admin, "report", "iris", "-o", "json"))["verdict"] == "not_enough_data"
    assert len(orjson.loads(run(admin, "list", "-o", "json"))) == 3


@pytest.mark.parametrize(
    ("route", "sentence"),
    [("/team-a/iris", "iris@1.1.0, iris@2.0.0; name one of them"), ("digits", "`nstarx shadow list`")],
)
def test_shadow_that_is_not_clear_is_asked_for(admin: str, route: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(sentence)):
        run(admin, "report", route)
