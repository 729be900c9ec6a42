"""Tables in Markdown, results in JSON, and the README's section between its markers."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from benchmarks.goals import GOALS, Goal, Summaries, met
from benchmarks.measurement import Summary

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).with_name("README.md")
PACKAGES = ("ray", "uvicorn", "starlette", "onnxruntime", "orjson")


def comparison(summaries: Summaries) -> str:
    """The table of contenders and that of the goals."""
    return f"{contenders_table(summaries)}\n\n{goals_table(summaries)}"


def contenders_table(summaries: Summaries) -> str:
    """One row a contender; a cell has its figures at each number of connections."""
    loads = sorted({connections for summary in summaries.values() for connections in summary.figures})
    at = f"at {', '.join(map(str, loads))}"
    head = ["", f"requests/s {at}", f"p50 ms {at}", f"p99 ms {at}", f"CPU µs a request {at}"]
    return table([*head, "memory MB", "errors", "wrong"], (_row(summary) for summary in summaries.values()))


def _row(summary: Summary) -> list[str]:
    figures = summary.figures.values()
    return [
        summary.title,
        " · ".join(f"{f.requests_per_second:,.0f}" for f in figures),
        " · ".join(f"{f.p50_ms:.2f}" for f in figures),
        " · ".join(f"{f.p99_ms:.2f}" for f in figures),
        " · ".join(f"{f.cpu_us:,.0f}" for f in figures),
        " + ".join(f"{size:.0f}" for size in summary.memory_mb.values()),
        str(sum(f.errors for f in figures)),
        str(sum(f.wrong for f in figures)),
    ]


def goals_table(summaries: Summaries, goals: Iterable[Goal] = GOALS) -> str:
    return table(["goal", "measured", "wanted", "met"], (_goal_row(goal, goal.value(summaries)) for goal in goals))


def _goal_row(goal: Goal, value: float | None) -> list[str]:
    wanted = f"{'≥' if goal.at_least else '≤'} {goal.bound:g}{goal.unit}"
    if value is None:
        return [goal.title, "not measured", wanted, ""]
    return [goal.title, f"{value:.3g}{goal.unit}", wanted, "yes" if met(goal, value) else "no"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column left, numbers right."""
    alignment = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, alignment, *rows))


def machine(cpus: Sequence[int]) -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus_used": list(cpus),
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def cpu_model() -> str:
    with open("/proc/cpuinfo") as info:
        names = (line.partition(":")[2].strip() for line in info if line.startswith("model name"))
        return next(names, platform.machine())


def caption(machine: dict[str, Any], seconds: int, repetitions: int) -> str:
    date, cpus = machine["when"][:10], len(machine["cpus_used"])
    return (
        f"Measured on {date} on {cpus} CPUs ({machine['cpu']}) shared by server and load generator; medians of "
        f"{repetitions} repetitions of {seconds} s each."
    )


def save(folder: Path, name: str, result: dict[str, Any], text: str) -> None:
    """Write NAME.json and NAME.md, and the README's section when the folder is the repository's own."""
    folder.mkdir(parents=True, exist_ok=True)
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
    (folder / f"{name}.json").write_bytes(orjson.dumps(result, option=options))
    (folder / f"{name}.md").write_text(text + "\n")
    if folder.resolve() == RESULTS:
        README.write_text(fill(README.read_text(), name, text))


def fill(document: str, name: str, text: str) -> str:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opening, rest = document.partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise ValueError(f"the document has no section between {start} and {end}")
    return f"{before}{start}\n{text}\n{end}{after}"
