"""`nstarx canary`, `nstarx routes switch`, `nstarx routes rule`: the changes that people make under pressure."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from nstarx.cli.connections import administration
from nstarx.cli.editing import Route, edit, split_of
from nstarx.cli.options import AdminURL
from nstarx.cli.output import console, print_warning
from nstarx.client import ADMIN_URL
from nstarx.errors import InvalidRequest

RouteName = Annotated[
    str, typer.Argument(help="The route's name: its model, behind hosts and prefix where it has any.")
]
OTHER_SIDE = {"blue": "green", "green": "blue"}


class Side(StrEnum):
    blue = "blue"
    green = "green"


class Switch(StrEnum):
    on = "on"
    off = "off"


def register(app: typer.Typer, routes: typer.Typer) -> None:
    app.command("canary")(canary)
    routes.command("switch")(switch)
    routes.command("rule")(rule)


def canary(
    route: RouteName,
    percent: Annotated[float, typer.Argument(help="The candidate's share of the requests.", min=0, max=100)],
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Give a canary's candidate another share; everything else of the route stays."""
    said: list[str] = []

    def change(given: Route) -> None:
        spec = split_of(given, "canary")
        said[:] = [f"{spec['candidate']} gets {percent:g} % instead of {spec['percent']:g} %"]
        given["split"]["canary"] = {**spec, "percent": percent}

    with administration(admin_url) as admin:
        _tell(route, edit(admin, route, change), said)


def switch(
    route: RouteName,
    to: Annotated[Side | None, typer.Option(help="The side that answers from now on; else the other one.")] = None,
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Let the other side of a blue/green split answer, at once in every gateway."""
    said: list[str] = []

    def change(given: Route) -> None:
        spec = split_of(given, "blue_green")
        live = to.value if to else OTHER_SIDE[spec["live"]]
        said[:] = [f"{live} ({spec[live]}) answers"]
        given["split"]["blue_green"] = {**spec, "live": live}

    with administration(admin_url) as admin:
        _tell(route, edit(admin, route, change), said)


def rule(
    route: RouteName,
    name: Annotated[str, typer.Argument(metavar="RULE", help="The rule's name.")],
    state: Annotated[Switch, typer.Argument(help="`off` passes the rule by and leaves it in place.")],
    admin_url: AdminURL = ADMIN_URL,
) -> None:
    """Switch a rule of a route on or off: its kill switch."""

    def change(given: Route) -> None:
        known = {rule["name"]: rule for rule in given["rules"]}
        if name not in known:
            raise InvalidRequest(f"route '{route}' has no rule '{name}'; its rules are: {', '.join(known) or 'none'}")
        known[name]["enabled"] = state is Switch.on

    with administration(admin_url) as admin:
        _tell(route, edit(admin, route, change), [f"rule {name} is {state.value}"])


def _tell(route: str, applied: dict[str, Any], said: list[str]) -> None:
    unchanged = "" if applied["changed"] else ", as before"
    console.print(
        f"route '{route}': {said[0]}{unchanged}; snapshot {applied['number']}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    for warning in applied["warnings"]:
        print_warning(warning)
