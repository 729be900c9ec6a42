"""Requests below a path prefix, of which routes may have some: `/team-a/v2/models/iris`."""

from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

V2 = "/v2"


class Prefixed:
    """Takes a known prefix from the path of a request and keeps it as ASGI's `root_path`, so that the application
    behind answers as if it were mounted there."""

    def __init__(self, app: ASGIApp, prefixes: Callable[[], Collection[str]]) -> None:
        self._app = app
        self._prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (prefix := prefix_of(scope["path"], self._prefixes())):
            scope = {**scope, "root_path": prefix}
        await self._app(scope, receive, send)


def prefix_of(path: str, prefixes: Collection[str]) -> str:
    """The longest of the prefixes that stands before `/v2` in a path; "" where none does."""
    at = path.rfind(V2)
    while at > 0:
        if path[:at] in prefixes and path[at + len(V2) : at + len(V2) + 1] in ("", "/"):
            return path[:at]
        at = path.rfind(V2, 0, at)
    return ""
