"""`nstarx events`: what has happened, a line for people or a line of JSON for machines."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from nstarx.cli.connections import administration
from nstarx.cli.options import AdminURL
from nstarx.client import ADMIN_URL, Admin

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""What could break a line, or move the cursor: parts of an event may come from requests."""
KIND_WIDTH, SUBJECT_WIDTH = 20, 24


class Lines(StrEnum):
    """What `--output` takes: text for people, or a line of JSON for each event."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    app.command("events")(events)


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", help="How many of the past.", min=0, max=1000)] = 50,
    after: Annotated[int | None, typer.Option(help="Those after this number instead.", min=0)] = None,
    output: Annotated[Lines, typer.Option("--output", "-o", help="`text`, or a line of `json` each.")] = Lines.text,
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Show what has happened: demotions, changes, replicas and gateways that come and go."""
    show: Callable[[Mapping[str, Any]], str] = json_line if output is Lines.json else line
    with administration(admin_url) as admin:
        past = admin.events(after or 0)
        shown = past if after is not None else past[len(past) - min(last, len(past)) :]
        for event in shown:
            typer.echo(show(event))
        if follow:
            _follow(admin, past[-1]["number"] if past else after or 0, show)


def _follow(admin: Admin, after: int, show: Callable[[Mapping[str, Any]], str]) -> None:
    try:
        for event in admin.follow_events(after):
            typer.echo(show(event))
    except KeyboardInterrupt:
        return


def line(event: Mapping[str, Any]) -> str:
    """Time in UTC, kind, what it is about, and the sentence; always one line."""
    kind, subject = _clean(event["kind"]), _clean(_subject(event))
    return f"{_time(event['time'])}  {kind:<{KIND_WIDTH}}  {subject:<{SUBJECT_WIDTH}}  {_clean(event['sentence'])}"


def json_line(event: Mapping[str, Any]) -> str:
    """The whole event, in ASCII."""
    return json.dumps(event, separators=(",", ":"))


def _subject(event: Mapping[str, Any]) -> str:
    """Version and route where both are known and the version's name doesn't say the route."""
    route, version = event.get("route"), event.get("version")
    if route and version and version.partition("@")[0] != route:
        return f"{version} ({route})"
    return version or route or event.get("gateway") or "-"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")


def _clean(text: str) -> str:
    return UNPRINTABLE.sub(" ", text)
