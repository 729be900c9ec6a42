"""`nstarx demotions`: verdicts against versions, with the evidence, and how to undo one."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.markup import escape

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.cli.standings import in_style, moment
from nstarx.client import ADMIN_URL

demotions = typer.Typer(no_args_is_help=True, help="See which versions were found guilty, why, and undo it.")
Id = Annotated[int, typer.Argument(help="Number of the demotion, as `list` shows it.", min=1)]


def register(app: typer.Typer) -> None:
    app.add_typer(demotions, name="demotions")


@demotions.command("list")
def list_demotions(admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """List the latest verdicts against versions, newest last."""
    with administration(admin_url) as admin:
        records = admin.demotions()
    if output is not Format.table:
        print_document(records, output)
    elif records:
        print_table(("ID", "TIME", "ROUTE", "VERSION", "OUTCOME", "BECAUSE OF", "NOW"), map(_listed, records))
    else:
        console.print("no version has been found guilty")


def _listed(record: dict[str, Any]) -> tuple[Any, ...]:
    outcome = f"{record['outcome']}, undone" if record["undone"] else record["outcome"]
    names = map(escape, (record["route"], record["version"], outcome, record["evidence"]["rule"]))
    return record["id"], moment(record["time"]), *names, in_style(record["standing"]["state"])


@demotions.command()
def show(id: Id, admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """Show one verdict with all that it rests on, so that you can agree or not."""
    with administration(admin_url) as admin:
        record = admin.demotion(id)
    if output is not Format.table:
        print_document(record, output)
        return
    console.print(escape(record["sentence"]), style="bold", highlight=False, soft_wrap=True)
    console.print()
    print_table(
        ("", "VERSION", "CALLS", "FAILED", "RATE", "TIMEOUTS", "INVALID", "P99 MS"), _figures(record["evidence"])
    )
    console.print()
    print_table(("", ""), _facts(record))


def _figures(evidence: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What both versions did over the same time."""
    for title, figures in (("accused", evidence["accused"]), ("beside", evidence["stable"])):
        if figures:
            rate = f"{100 * figures['failures'] / figures['calls']:.4g} %" if figures["calls"] else "-"
            p99 = "-" if figures["p99_ms"] is None else f"{figures['p99_ms']:.4g}"
            counts = figures["calls"], figures["failures"], rate, figures["timeouts"], figures["invalid"], p99
            yield title, escape(figures["version"]), *counts


def _facts(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    evidence, standing = record["evidence"], record["standing"]
    yield "rule", evidence["rule"]
    yield "over", f"{evidence['window_s']:.3g} s, up to {moment(record['time'])}"
    yield "evidence", _strength(evidence)
    if evidence["limit"] is not None:
        yield "borne", _milliseconds(evidence["limit"]) if _is_latency(evidence) else f"{100 * evidence['limit']:.4g} %"
    yield "first failing", escape(", ".join(evidence["first_failing"])) or "-"
    yield "found by", escape(record["gateway"] or "the counts of all gateways together")
    yield "outcome", record["outcome"] + (f", undone at {moment(record['undone'])}" if record["undone"] else "")
    yield "now", f"{in_style(standing['state'])} {escape(standing['reason'] or '')}"


def _strength(evidence: dict[str, Any]) -> str:
    """How strong it is, and how strong it had to be: what bets on its being at fault have become, or milliseconds."""
    found, wanted = evidence["statistic"], evidence["threshold"]
    if _is_latency(evidence):
        return f"above {_milliseconds(found)} beyond doubt, where {_milliseconds(wanted)} is borne"
    return f"bets that it is at fault have grown to {found:.2g} times the stake, where {wanted:.2g} is enough"


def _is_latency(evidence: dict[str, Any]) -> bool:
    return str(evidence["rule"]).startswith("max_p99")


def _milliseconds(number: float) -> str:
    return f"{number:.4g} ms"


@demotions.command()
def undo(id: Id, admin_url: AdminURL = ADMIN_URL) -> None:
    """Give the version all of its traffic back; for a while verdicts against it are reported only."""
    with administration(admin_url) as admin:
        record = admin.undo_demotion(id)
    until = record["standing"]["until"]
    grace = f"; verdicts against it are only reported until {moment(until)}" if until else ""
    console.print(f"{record['version']} has its traffic on route '{record['route']}' back{grace}", soft_wrap=True)
