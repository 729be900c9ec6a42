"""Changes of one part of a route: read, change, write back unless somebody else was faster."""

from collections.abc import Callable
from typing import Any

from nstarx.client import Admin, RemoteError
from nstarx.errors import Conflict, InvalidRequest
from nstarx.spec.record import parse
from nstarx.spec.route import RouteSpec

Route = dict[str, Any]
TRIES = 5
"""Two writers that meet; the second one reads again."""


def edit(admin: Admin, name: str, change: Callable[[Route], None]) -> dict[str, Any]:
    """Let `change` alter one route in place; what became of it. Raises InvalidRequest where there is no such route."""
    for attempt in range(TRIES):
        document, etag = admin.routes()
        change(_named(document["routes"], name))
        try:
            return admin.apply_routes(document, etag)
        except RemoteError as error:
            if error.status != Conflict.status or attempt == TRIES - 1:
                raise
    raise AssertionError("the last try has answered or raised")


def _named(routes: list[Route], name: str) -> Route:
    names = [parse(RouteSpec, route, "a route as the server tells it").name for route in routes]
    if name not in names:
        there = f"there are: {', '.join(names)}" if names else "there are none; `nstarx routes apply` makes some"
        raise InvalidRequest(f"there is no route '{name}'; {there}")
    return routes[names.index(name)]


def split_of(route: Route, kind: str) -> dict[str, Any]:
    """The part of a route's split that is of one kind. Raises InvalidRequest that says which kind it is of."""
    split: dict[str, Any] = route["split"]
    if split.get(kind) is None:
        given = ", ".join(name for name, value in split.items() if value is not None and name != "sticky")
        raise InvalidRequest(f"route '{route['model']}' has no split of kind {kind}; it has: {given}")
    return dict(split[kind])
