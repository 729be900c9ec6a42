"""What a new snapshot takes out of the caches of a gateway that held another one."""

from collections.abc import Iterator
from typing import Any

from cluster.records import PURGES, Snapshot
from judging.standing import Standing

OUT = ("demoted", "given_up")
"""States of a version whose answers are not to be trusted."""

Words = set[str | None]
"""Surrogate keys; None is everything."""


def stale(before: Snapshot, after: Snapshot) -> Words:
    """What somebody has purged, and what versions have said that answer otherwise now, are out, or left every route."""
    gone = {*_changed(before, after), *_out(before, after), *_left(before, after)}
    return {*_asked_for(before, after), *(f"version:{ref}" for ref in gone)}


def _asked_for(before: Snapshot, after: Snapshot) -> Words:
    missed = len(after.purges) == PURGES and after.purges[0].number > before.number
    return {None} if missed else {purge.key for purge in after.purges if purge.number > before.number}


def _changed(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Versions that may answer otherwise than they did: with other settings, or deployed anew."""
    for ref in after.models:
        # Compared as text: to Python 1 and true are equal.
        if ref not in before.models or repr(_settings(before, ref)) != repr(_settings(after, ref)):
            yield ref


def _settings(snapshot: Snapshot, ref: str) -> dict[str, Any]:
    return snapshot.settings.get(ref, snapshot.models[ref].settings)


def _out(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for route, versions in after.standings.items():
        known = before.standings.get(route, {})
        for ref, standing in versions.items():
            if standing.state in OUT and known.get(ref, Standing()).state not in OUT:
                yield ref


def _left(before: Snapshot, after: Snapshot) -> set[str]:
    return _named(before) - _named(after)


def _named(snapshot: Snapshot) -> set[str]:
    return {ref for route in snapshot.routes for ref in route.versions}
