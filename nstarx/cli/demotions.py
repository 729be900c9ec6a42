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
    print_table(("", "VERSION", "CALLS", "FAILED", "RATE", "TIMEOUTS", "INVALID"), _figures(record["evidence"]))
    console.print()
    print_table(("", ""), _facts(record))


def _figures(evidence: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What both versions did over the same time."""
    for title, figures in (("accused", evidence["accused"]), ("beside", evidence["stable"])):
        if figures:
            rate = f"{100 * figures['failures'] / figures['calls']:.4g} %" if figures["calls"] else "-"
            counts = figures["calls"], figures["failures"], rate, figures["timeouts"], figures["invalid"]
            yield title, escape(figures["version"]), *counts


def _facts(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    evidence, standing = record["evidence"], record["standing"]
    yield "rule", evidence["rule"]
    yield "over", f"{evidence['window_s']:.3g} s, up to {moment(record['time'])}"
    yield "evidence", f"{evidence['statistic']:.3g}, where {evidence['threshold']:.3g} is enough"
    if evidence["limit"] is not None:
        yield "borne", f"{evidence['limit']:.4g}"
    yield "first failing", escape(", ".join(evidence["first_failing"])) or "-"
    yield "found by", escape(record["gateway"] or "the counts of all gateways together")
    yield "outcome", record["outcome"] + (f", undone at {moment(record['undone'])}" if record["undone"] else "")
    yield "now", f"{in_style(standing['state'])} {escape(standing['reason'] or '')}"


@demotions.command()
def undo(id: Id, admin_url: AdminURL = ADMIN_URL) -> None:
    """Give the version all of its traffic back; for a while verdicts against it are reported only."""
    with administration(admin_url) as admin:
        record = admin.undo_demotion(id)
    until = record["standing"]["until"]
    grace = f"; verdicts against it are only reported until {moment(until)}" if until else ""
    console.print(f"{record['version']} has its traffic on route '{record['route']}' back{grace}", soft_wrap=True)
