"""`nstarx shadow`: what versions would have answered, beside what clients got."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.client import ADMIN_URL, Admin
from nstarx.errors import InvalidRequest

Row = dict[str, Any]

STYLES = {"ready": "green", "not_ready": "red", "not_enough_data": "yellow"}
DROPPED = {
    "in_flight": "max_in_flight copies were under way",
    "memory": "copies held too many bytes",
    "busy": "the gateway or the primary was busy",
    "full": "the shadow's replicas were half full",
    "no_replica": "the shadow has no replica",
}
"""Why a request was not copied, in words."""
MAX_SLICES = 20
"""Rows of the breakdown that are printed; the document has them all."""


shadow = typer.Typer(no_args_is_help=True, help="See what shadows have shown.")
RouteName = Annotated[str, typer.Argument(help="The route's name: its model, behind prefix and hosts.")]
Version = Annotated[str | None, typer.Argument(help="The shadow, where the route has several.")]


def register(app: typer.Typer) -> None:
    app.add_typer(shadow, name="shadow")


@shadow.command("list")
def list_shadows(admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """List every shadow, with its verdict."""
    with Admin(admin_url) as admin:
        shadows = admin.shadows()
    if output is not Format.table:
        print_document(shadows, output)
        return
    print_table(
        ("ROUTE", "SHADOW", "VERDICT", "SAMPLED", "COMPARED", "MISMATCHED", "FAILED", "DROPPED"),
        [[escape(str(cell)) for cell in _listed(row)] for row in shadows],
    )


@shadow.command()
def report(
    route: RouteName, version: Version = None, admin_url: AdminURL = ADMIN_URL, output: Output = Format.table
) -> None:
    """Show how a shadow's answers differ, and whether it is ready to be a canary."""
    with Admin(admin_url) as admin:
        document = admin.shadow(route, version or _only_shadow(admin, route))
    if output is Format.table:
        render(document)
    else:
        print_document(document, output)


@shadow.command()
def reset(route: RouteName, version: Version = None, admin_url: AdminURL = ADMIN_URL) -> None:
    """Forget what a shadow has shown, and begin anew."""
    with Admin(admin_url) as admin:
        version = version or _only_shadow(admin, route)
        admin.reset_shadow(route, version)
    console.print(f"shadow {version} of route '{route}' begins anew", markup=False, highlight=False)


def _only_shadow(admin: Admin, route: str) -> str:
    versions = [str(row["version"]) for row in admin.shadows() if row["route"] == route]
    if len(versions) != 1:
        known = f"has {', '.join(versions)}; name one of them" if versions else "has no shadow; `nstarx shadow list`"
        raise InvalidRequest(f"route '{route}' {known}")
    return versions[0]


def _listed(row: Row) -> tuple[Any, ...]:
    verdict = f"{row['verdict']}".replace("_", " ")
    return (
        row["route"], row["version"], verdict, row["sampled"], row["compared"], row["mismatched"], row["failed"],
        row["dropped"],
    )  # fmt: skip


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
    names = ("refused", "not_compared", "both_failed", "primary_failed", "rescued")
    drops = [(f"dropped: {DROPPED[why]}", count) for why, count in sorted(report["drops"].items())]
    statuses = [
        (f"{side} answered {status}", count)
        for side in ("primary", "shadow")
        for status, count in sorted(report[f"{side}_statuses"].items())
    ]
    counts = [(name.replace("_", " "), report[name]) for name in names if report[name]]
    return [("sampled", report["sampled"]), *drops, *counts, *statuses]


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
