"""What is left of a split's weights when demotions are taken into account."""

from collections.abc import Iterable, Mapping

from judging.standing import Standing, share
from nstarx.spec.split import SplitSpec

Shares = Mapping[str, float]
"""Version to the part of its weight that it has, where that isn't all of it."""


def effective(split: SplitSpec, shares: Shares) -> dict[str, float]:
    """Version to weight. What a candidate loses goes to the stable version; else all others gain in proportion.

    No weight is above 0 where demotions leave nobody.
    """
    configured = split.weights
    weights = {ref: weight * shares.get(ref, 1.0) for ref, weight in configured.items()}
    if split.candidate and split.stable:
        weights[split.stable] += configured[split.candidate] - weights[split.candidate]
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
