"""Purges of the response caches, from the request to the last gateway that obeyed."""

import asyncio
from typing import Any

from nstarx.errors import InvalidRequest
from nstarx.spec.record import Record, parse
from router.gateway import Gateway

KINDS = ("version", "model", "route")
POLLS, POLL_S = 40, 0.05
"""Gateways hear of a purge at once; one that is cut off obeys as soon as it hears of anything."""


class Purge(Record):
    """What is asked for."""

    key: str | None
    """A surrogate key, as answers bear it; null is all of them."""


class Purged(Record):
    """What became of a purge."""

    key: str | None
    number: int
    """The snapshot that tells gateways of it."""
    warnings: tuple[str, ...] = ()
    """Sentences about gateways that have yet to obey."""


async def purge(gateway: Gateway, document: dict[str, Any]) -> Purged:
    """Drop answers in every gateway, and wait until all have. Raises InvalidConfiguration or InvalidRequest."""
    key = _valid(parse(Purge, document, "purge").key)
    return await purge_key(gateway, key, "a person asked for it")


async def purge_key(gateway: Gateway, key: str | None, reason: str) -> Purged:
    """The same, for a key that is one."""
    snapshot = await gateway.coordination.purge_caches(key, reason)
    gateway.hold(snapshot)
    behind: list[str] = []
    for _ in range(POLLS):
        readings = await gateway.readings()
        behind = [id for id, reading in readings.items() if reading["snapshot"] < snapshot.number]
        if not behind:
            break
        await asyncio.sleep(POLL_S)
    warnings = tuple(f"gateway {id} has not obeyed yet; it does as soon as it hears of it" for id in behind)
    return Purged(key=key, number=snapshot.number, warnings=warnings)


def _valid(key: str | None) -> str | None:
    kind, _, name = (key or "").partition(":")
    if key is None or (kind in KINDS and name):
        return key
    raise InvalidRequest(
        f"key: '{key}' is no surrogate key; write it like version:iris@1.0.0, model:iris or route:iris"
    )
