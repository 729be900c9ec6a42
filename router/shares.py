"""What is left of a split's weights when demotions are taken into account."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from judging.standing import Standing, share
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec

Shares = Mapping[str, float]
"""Version to the part of its weight that it has, where that isn't all of it."""

SHOWN = {"state", "since", "until", "percent", "demotions", "reason"}
"""Parts of a standing that everybody is shown; the evidence is in the records."""


def effective(split: SplitSpec, shares: Shares) -> dict[str, float]:
    """Version to weight. What a canary's candidate loses goes to the stable version; else all others gain in
    proportion, which of an experiment's callers moves those of the arm in question alone.

    No weight is above 0 where demotions leave nobody.
    """
    configured = split.weights
    weights = {ref: weight * shares.get(ref, 1.0) for ref, weight in configured.items()}
    if split.canary:
        stable, candidate = split.canary.stable, split.canary.candidate
        weights[stable] += configured[candidate] - weights[candidate]
    return weights


def shares_of(
    standings: Mapping[str, Mapping[str, Standing]], blown: Iterable[tuple[str, str]] = ()
) -> dict[str, dict[str, float]]:
    """By route, the versions that don't have all of their weight. `blown` have none, whatever their standing."""
    shares = {
        route: {ref: part for ref, standing in versions.items() if (part := share(standing)) < 1}
        for route, versions in standings.items()
    }
    for route, ref in blown:
        shares.setdefault(route, {})[ref] = 0.0
    return shares


def standing_shares(
    routes: Iterable[RouteSpec], standings: Mapping[str, Mapping[str, Standing]]
) -> list[dict[str, Any]]:
    """What every version of every split has and where it stands, as JSON: rows for people and metrics."""
    shares = shares_of(standings)
    return [
        row
        for route in routes
        for rule, split in _splits(route)
        for row in _rows(route.name, rule, split, shares.get(route.name, {}), standings.get(route.name, {}))
    ]


def _rows(
    route: str, rule: str | None, split: SplitSpec, shares: Shares, standings: Mapping[str, Standing]
) -> Iterator[dict[str, Any]]:
    configured, present = split.weights, effective(split, shares)
    for ref in configured:
        yield {
            "route": route,
            "rule": rule,
            "version": ref,
            "role": split.role(ref),
            "configured": _part(ref, configured),
            "share": _part(ref, present),
            **standings.get(ref, Standing()).model_dump(mode="json", include=SHOWN),
        }


def _splits(route: RouteSpec) -> list[tuple[str | None, SplitSpec]]:
    """In the order in which they are asked, by the rule's name; None is the route's own."""
    return [*((rule.name, rule.split) for rule in route.rules if rule.enabled), (None, route.split)]


def _part(ref: str, weights: Mapping[str, float]) -> float:
    total = sum(weights.values())
    return round(weights[ref] / total, 6) if total else 0.0
