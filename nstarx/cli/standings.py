"""How commands show what versions have, and where they stand."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.text import Text

from nstarx.cli.output import console, print_table

Row = dict[str, Any]
STYLES = {"healthy": "green", "suspected": "yellow", "probation": "yellow", "demoted": "red", "given_up": "red"}
OUT = ("demoted", "given_up")


def print_shares(rows: Iterable[Row]) -> None:
    """What each version of each split was given, has, and why; `shares` of a status document."""
    print_table(("ROUTE", "RULE", "VERSION", "ROLE", "WANTED", "HAS", "STATE"), map(_cells, rows))


def _cells(row: Row) -> tuple[str, ...]:
    names = (row["route"], row["rule"] or "-", row["version"], row["role"])
    return (*map(escape, names), _percent(row["configured"]), _percent(row["share"]), in_style(row["state"]))


def in_style(state: str) -> str:
    """A state in its colour, as rich's markup."""
    style = STYLES.get(state, "default")
    return f"[{style}]{escape(state)}[/{style}]"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def print_alarms(rows: Iterable[Row]) -> None:
    """Loudly, who is out of traffic or on the way back, and why: each version of a route once."""
    told = {(row["route"], row["version"]): row for row in rows if row["state"] in (*OUT, "probation")}
    for row in told.values():
        console.print(Text(alarm(row), "bold red" if row["state"] in OUT else "yellow"), soft_wrap=True)


def alarm(row: Row) -> str:
    """One sentence about a version that doesn't have all of its traffic."""
    state = row["state"].replace("_", " ").upper()
    until = f" until {moment(row['until'])}" if row["state"] == "demoted" and row["until"] else ""
    return f"{row['version']} is {state} on route '{row['route']}'{until}: {row['reason'] or 'nobody said why'}"


def moment(seconds: float) -> str:
    """A time as people read it, in UTC: the time alone where it is of today."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%H:%M:%SZ}" if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d %H:%M:%SZ}"
