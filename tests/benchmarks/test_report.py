import pathlib

import orjson
import pytest

from benchmarks import goals, overheads, report
from tests.benchmarks.samples import summary

OURS = summary("NStarX", 40_000, cpu_us=25, gateway=100.0, replica=140.0)
BARE = summary("bare", 8_000, cpu_us=120, python=80.0)


def test_table_has_a_row_for_each_contender() -> None:
    lines = report.contenders_table({"nstarx": OURS, "bare": BARE}).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert lines[2].startswith("| NStarX | 40,000 · 40,000 · 40,000 | 0.50 · 0.50 · 0.50 | 1.50 · 1.50 · 1.50 |")
    assert "| 100 + 140 |" in lines[2]


def test_goal_that_is_reached_says_so_and_one_that_is_not_too() -> None:
    table = report.goals_table({"nstarx": OURS, "bare": BARE})
    assert "| requests/s at 128 connections, over the bare process | 5x | ≥ 4x | yes |" in table
    assert "| CPU per request at 32 connections, over the bare process | 0.208x | ≤ 0.35x | yes |" in table
    slow = report.goals_table({"nstarx": summary("NStarX", 16_000), "bare": BARE})
    assert "| requests/s at 128 connections, over the bare process | 2x | ≥ 4x | no |" in slow


def test_goal_without_its_contender_is_not_called_reached() -> None:
    table = report.goals_table({"nstarx": OURS})
    assert "| requests/s at 128 connections, over Ray Serve's default proxy | not measured | ≥ 120x |  |" in table


def test_memory_of_gateway_and_replica_are_told_apart() -> None:
    values = [goal.value({"nstarx": OURS}) for goal in goals.GOALS if isinstance(goal, goals.Memory)]
    assert values == [100, 140]


def test_section_between_markers_is_replaced_and_the_rest_kept() -> None:
    document = "before\n<!-- comparison -->\nold\n<!-- /comparison -->\nafter\n"
    filled = report.fill(document, "comparison", "new")
    assert filled == "before\n<!-- comparison -->\nnew\n<!-- /comparison -->\nafter\n"
    assert report.fill(filled, "comparison", "new") == filled


def test_document_without_the_section_is_an_error() -> None:
    with pytest.raises(ValueError, match="no section"):
        report.fill("before", "comparison", "new")


@pytest.mark.parametrize("name", ["comparison", "overheads"])
def test_readme_has_the_sections_that_the_tools_fill(name: str) -> None:
    assert "new" in report.fill(report.README.read_text(), name, "new")


def test_results_are_written_as_json_and_markdown(tmp_path: pathlib.Path) -> None:
    readme = report.README.read_text()
    report.save(tmp_path / "results", "comparison", {"contenders": {"bare": BARE}}, "| table |")
    written = orjson.loads((tmp_path / "results" / "comparison.json").read_bytes())
    assert written["contenders"]["bare"]["figures"]["32"]["requests_per_second"] == 8000
    assert (tmp_path / "results" / "comparison.md").read_text() == "| table |\n"
    assert report.README.read_text() == readme


def test_machine_names_its_cpus_and_packages() -> None:
    machine = report.machine([0, 1])
    assert machine["cpus_used"] == [0, 1]
    assert machine["packages"]["ray"]
    assert "2 CPUs" in report.caption(machine, seconds=5, repetitions=3)


def test_cost_is_the_median_of_the_ratios_of_each_repetition() -> None:
    cost = overheads.Cost("feature", may_cost=0.15, plain=[100, 50, 100], loaded=[90, 45, 20])
    assert cost.share == pytest.approx(0.1)
    assert "| feature | 100 | 45 | 10.0% | ≤ 15% | yes |" in overheads.costs_table([cost])
