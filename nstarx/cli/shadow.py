"""How `nstarx shadow report` looks to people."""

from typing import Any

from rich.markup import escape

from nstarx.cli.output import console, print_table

Row = dict[str, Any]

STYLES = {"ready": "green", "not_ready": "red", "not_enough_data": "yellow"}
MAX_SLICES = 20
"""Rows of the breakdown that are printed; the document has them all."""


def render(report: Row) -> None:
    """Print a shadow's report, a `judging.shadow_report.ShadowReport` as JSON; names are printed as they are."""
    console.print(f"shadow {escape(report['version'])}", style="bold", highlight=False)
    console.print(escape(report["sentence"]), style=STYLES[report["verdict"]], highlight=False)
    _table(("REQUESTS", "COUNT"), _counts(report))
    _table(
        ("RATE", "PERCENT", "95 % INTERVAL", "OF"),
        [_rate("mismatches", report["mismatch"]), _rate("errors", report["errors"])],
    )
    _table(("LATENCY", "PRIMARY MS", "SHADOW MS", "DIFFERENCE MS"), _latency(report["latency"]))
    _table(
        ("OUTPUT", "MISMATCHES", "HOW", "MAX ABSOLUTE", "MEAN ABSOLUTE", "MAX RELATIVE", "MEAN RELATIVE", "NOT FINITE"),
        map(_output, report["outputs"]),
    )
    _table(("OUTPUT", "PRIMARY SAYS", "SHADOW SAYS", "ROWS"), _confusion(report))
    _table(("ATTRIBUTE", "VALUE", "MISMATCHES", "ERRORS"), map(_slice, report["slices"][:MAX_SLICES]))
    _table(("EXAMPLE", "DISTANCE", "STATUSES", "DIFFERENCES"), map(_example, report["examples"] + report["failures"]))


def _table(columns: tuple[str, ...], rows: Any) -> None:
    """A table, unless it has no rows."""
    cells = [[escape(str(cell)) for cell in row] for row in rows]
    if cells:
        console.print()
        print_table(columns, cells)


def _counts(report: Row) -> list[tuple[str, int]]:
    names = ("sampled", "dropped", "refused", "not_compared", "both_failed", "primary_failed")
    statuses = [
        (f"{side} answered {status}", count)
        for side in ("primary", "shadow")
        for status, count in sorted(report[f"{side}_statuses"].items())
    ]
    return [(name.replace("_", " "), report[name]) for name in names if report[name] or name == "sampled"] + statuses


def _rate(name: str, rate: Row) -> tuple[Any, ...]:
    return name, _percent(rate), f"{rate['low']:.3g} to {rate['high']:.3g}", rate["of"]


def _latency(latency: Row) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(_ms(latency[f"{side}_{name}_s"]) for side in ("primary", "shadow")),
            _ms(latency[f"{name}_difference_s"]),
        )
        for name in ("p50", "p99")
    ]


def _output(output: Row) -> tuple[Any, ...]:
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(output["kinds"].items())) or "-"
    # Classes and text have no numbers.
    measures = ("max_absolute", "mean_absolute", "max_relative", "mean_relative")
    return (
        output["output"],
        _share(output["mismatch"]),
        kinds,
        *(f"{output[m]:.3g}" if output[m] else "-" for m in measures),
        output["not_finite"],
    )


def _confusion(report: Row) -> list[tuple[Any, ...]]:
    return [
        (output["output"], pair["primary"], pair["shadow"], pair["rows"])
        for output in report["outputs"]
        for pair in output["confusion"]
    ]


def _slice(part: Row) -> tuple[str, ...]:
    return part["attribute"], part["value"], _share(part["mismatch"]), _share(part["errors"])


def _example(example: Row) -> tuple[str, ...]:
    statuses = f"{example['primary_status']} {example['shadow_status']}"
    return (
        example["id"],
        f"{example['distance']:.3f}",
        statuses,
        "\n".join(example["differences"]) or example["outcome"],
    )


def _share(rate: Row) -> str:
    return f"{rate['count']} of {rate['of']} ({_percent(rate)} %)" if rate["of"] else "-"


def _percent(rate: Row) -> str:
    return "-" if rate["percent"] is None else f"{rate['percent']:.3g}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
