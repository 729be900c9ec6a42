"""`nstarx status`: what is up, and what it has answered."""

from typing import Any

import typer

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.cli.standings import print_alarms, print_shares
from nstarx.client import ADMIN_URL
from nstarx.traffic import totals


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """Show gateways, versions, routes and traffic."""
    with administration(admin_url) as admin:
        document = admin.status()
    if output is Format.table:
        _print(document)
    else:
        print_document(document, output)


def _print(document: dict[str, Any]) -> None:
    print_alarms(document["shares"])
    gateways = [(g["gateway"], g["snapshot"], g["node"][:12]) for g in document["gateways"]]
    print_table(("GATEWAY", "SNAPSHOT", "NODE"), gateways)
    console.print()
    print_table(
        ("VERSION", "REPLICAS", "REQUESTS", "ERRORS", "P50 MS", "P99 MS"), map(_version(document), document["versions"])
    )
    console.print()
    print_shares(document["shares"])
    if document["ejected"]:
        console.print()
        rows = [(entry["gateway"], entry["ref"], entry["sentence"]) for entry in document["ejected"]]
        print_table(("GATEWAY", "VERSION", "EJECTED"), rows)
    if document["coordinator"] != "present":
        console.print("\nThe coordinator is away; gateways go on with what they know.", style="yellow")


def _version(document: dict[str, Any]) -> Any:
    def row(version: dict[str, Any]) -> tuple[Any, ...]:
        seen = totals(entry for entry in document["traffic"] if entry["ref"] == version["version"])
        return version["version"], version["replicas"], seen.requests, seen.errors, _ms(seen.p50_s), _ms(seen.p99_s)

    return row


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f}"
