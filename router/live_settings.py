"""Live settings of a version, from the request to what its replicas made of it."""

import asyncio
from typing import Any

from cluster.coordination import Applied
from cluster.records import Snapshot
from nstarx.errors import InvalidConfiguration
from router.gateway import Gateway
from router.purging import purge_key

POLLS, POLL_S = 40, 0.1
"""Replicas hear of new settings within a second; one that is at work may take longer."""


async def change_settings(gateway: Gateway, ref: str, patch: dict[str, Any]) -> Applied:
    """Apply a merge patch (RFC 7386), and wait until every replica has taken or refused it.

    Raises InvalidConfiguration with the model's own words when one refuses; the settings are then as they were.
    """
    before = _settings(await gateway.coordination.snapshot(), ref)
    applied = await gateway.coordination.apply_settings(ref, patch)
    if not applied.changed:
        return applied
    wanted = _settings(await gateway.coordination.snapshot(), ref)
    refusal, silent = await _taken(gateway, ref, wanted)
    if refusal is not None:
        await gateway.coordination.apply_settings(ref, _undoing(wanted, before))
        await _taken(gateway, ref, before)
        await _purge(gateway, ref)
        raise InvalidConfiguration(f"settings of {ref}: {refusal}")
    await _purge(gateway, ref)
    warnings = [f"replica {replica} has not taken them yet" for replica in silent]
    if ref not in (await gateway.coordination.snapshot()).models:
        warnings.append(f"{ref} has no replica now; the next one begins with them")
    return applied.model_copy(update={"warnings": (*applied.warnings, *warnings)})


async def _taken(gateway: Gateway, ref: str, wanted: dict[str, Any]) -> tuple[str | None, list[str]]:
    """Why a replica refuses the settings, if one does; and the replicas that have not said anything in time."""
    silent: list[str] = []
    for _ in range(POLLS):
        counters = await gateway.counters(ref)
        refused = [c["settings_refused"] for _, c in counters.values() if c["settings"] == wanted]
        if any(refused):
            return str(max(refused)), []
        silent = [replica for replica, (_, c) in counters.items() if c["settings"] != wanted]
        if counters and not silent:
            break
        await asyncio.sleep(POLL_S)
    return None, silent


async def _purge(gateway: Gateway, ref: str) -> None:
    """Gateways have dropped a version's answers when they heard of its settings, and kept what replicas said since
    that had not heard of them."""
    if any(route.cache for route in gateway.table.snapshot.routes):
        await purge_key(gateway, f"version:{ref}", f"settings of {ref} have changed")


def _settings(snapshot: Snapshot, ref: str) -> dict[str, Any]:
    """The settings that a version's replicas are told, or begin with."""
    if ref in snapshot.settings:
        return snapshot.settings[ref]
    return snapshot.models[ref].settings if ref in snapshot.models else {}


def _undoing(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that leads back."""
    return {**dict.fromkeys(now), **before}
