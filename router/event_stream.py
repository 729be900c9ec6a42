"""Events of the cluster over HTTP: as a list, and as server-sent events that go on (WHATWG HTML, 9.2)."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.requests import Request

from cluster.events import SIZE, Event, EventLog
from nstarx.errors import InvalidRequest

WAIT_S = 1.0
"""Between two looks at whether the gateway drains."""
QUIET = 15
"""Such waits without an event, after which a comment keeps the connection open through proxies."""


def after_of(request: Request) -> int:
    """The number that the client has seen last: of the header Last-Event-ID, or the parameter `after`; 0 for all."""
    return _number("last-event-id", request.headers.get("last-event-id") or request.query_params.get("after", "0"))


def limit_of(request: Request) -> int:
    """How many events the client wants at most."""
    return max(1, min(_number("limit", request.query_params.get("limit", str(SIZE))), SIZE))


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(f"{name}: '{text[:40]}' is not a whole number from 0 up")
    return int(text)


def listed(log: EventLog, after: int, limit: int) -> dict[str, Any]:
    """Events with a higher number, and whether some between are no longer kept."""
    events = log.after(after, limit)
    return {"events": [as_json(event) for event in events], "missed": bool(after) and log.missed(after)}


async def stream(log: EventLog, after: int, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Every event with a higher number as it comes, until the gateway drains. The client's `Last-Event-ID` takes up
    the thread at any gateway; a comment says so where events between are no longer kept."""
    if after and log.missed(after):
        yield b": some events before these are no longer kept\n\n"
    quiet = 0
    while not ended():
        events = await log.wait(after, WAIT_S)
        for event in events:
            yield b"id: %d\nevent: %b\ndata: %b\n\n" % (event.number, event.kind.encode(), orjson.dumps(as_json(event)))
            after = event.number
        quiet = 0 if events else quiet + 1
        if quiet >= QUIET:
            quiet = 0
            yield b": nothing new\n\n"


def as_json(event: Event) -> dict[str, Any]:
    return event.model_dump(mode="json")
