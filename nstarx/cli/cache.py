"""`nstarx cache`: look at what gateways keep of answers, and drop it."""

from typing import Annotated, Any

import typer

from nstarx.cli.options import AdminURL
from nstarx.cli.output import Format, Output, console, print_document, print_table
from nstarx.client import ADMIN_URL, Admin
from nstarx.errors import InvalidRequest

cache = typer.Typer(no_args_is_help=True, help="Look at cached answers, and drop them.")

COLUMNS = ("ROUTE", "HITS", "SHARED", "MISSES", "BYPASSED", "SAVED", "KEPT", "BYTES", "EVICTED", "EXPIRED")
COUNTERS = ("hits", "followers", "misses", "bypasses", "entries", "bytes", "evictions", "expirations")


def register(app: typer.Typer) -> None:
    app.add_typer(cache, name="cache")


@cache.command()
def show(admin_url: AdminURL = ADMIN_URL, output: Output = Format.table) -> None:
    """Show what has come of requests to routes with a cache, and what is kept, in all gateways together."""
    with Admin(admin_url) as admin:
        readings = admin.caches()
    if output is not Format.table:
        print_document(readings, output)
        return
    print_table(COLUMNS, [_row(route, sums) for route, sums in sorted(_by_route(readings).items())])
    if not readings:
        console.print("no route has a cache", style="dim")


@cache.command()
def purge(
    key: Annotated[
        str | None, typer.Argument(help="A surrogate key: version:iris@1.0.0, model:iris or route:iris.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Drop all cached answers.")] = False,
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Drop cached answers in every gateway."""
    if everything == (key is not None):
        raise InvalidRequest("name a surrogate key, for example version:iris@1.0.0, or give --all")
    with Admin(admin_url) as admin:
        purged = admin.purge_caches(key)
    console.print(f"dropped {key or 'all cached answers'}; snapshot {purged['number']}")
    for warning in purged["warnings"]:
        console.print(f"warning: {warning}", style="yellow")


def _by_route(readings: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Sums over gateways."""
    sums: dict[str, dict[str, int]] = {}
    for reading in readings:
        of_route = sums.setdefault(reading["route"], dict.fromkeys(COUNTERS, 0))
        for counter in COUNTERS:
            of_route[counter] += reading[counter]
    return sums


def _row(route: str, sums: dict[str, int]) -> tuple[Any, ...]:
    hits, shared, misses, bypasses, entries, size, evicted, expired = (sums[counter] for counter in COUNTERS)
    asked = hits + shared + misses + bypasses
    answered = f"{(hits + shared) / asked:.1%}" if asked else "-"
    return route, hits, shared, misses, bypasses, answered, entries, size, evicted, expired
