"""Which versions of a route are watched, what each is compared with, and whether one may be demoted."""

from collections.abc import Mapping
from typing import NamedTuple

from judging.standing import Standing, may_demote
from nstarx.spec.demotion import DemotionSpec
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec


class Watched(NamedTuple):
    """A version that may be demoted."""

    ref: str
    split: SplitSpec
    reference: str | None
    """The version that it is compared with, and that has to do better."""


def watch_of(split: SplitSpec, ref: str) -> Watched | None:
    """How a version of a split is watched. None for the one that a canary or a switch stands on, and for one alone."""
    if len(split.weights) < 2 or (split.weighted is None and ref == split.stable):
        return None
    others = (other for other in split.weights if other != ref)
    return Watched(ref, split, split.stable if split.stable != ref else next(others, None))


def watched(route: RouteSpec) -> dict[str, Watched]:
    """Every version of a route that may be demoted; one in several splits is watched as in the first."""
    if route.demotion is None:
        return {}
    found: dict[str, Watched] = {}
    for split in route.splits:
        for ref in split.weights:
            if ref not in found and (watch := watch_of(split, ref)):
                found[ref] = watch
    return found


def roles(route: RouteSpec, ref: str) -> tuple[str, ...]:
    """The roles that a version has in the splits of a route: what became of its calls in all of them is judged as one,
    because it is demoted from all of them."""
    return tuple(dict.fromkeys(split.role(ref) for split in route.splits if ref in split.weights))


def refusal(route: RouteSpec, ref: str, standings: Mapping[str, Standing]) -> str | None:
    """Why a version of a route must not be demoted, as a sentence; None when it may."""
    watch = watched(route).get(ref)
    if watch is None:
        return f"{ref} stays: nothing else of this route could answer instead."
    split = watch.split
    stable = split.stable if split.weighted is None and split.stable != ref else None
    return may_demote(ref, split.weights, standings, route.demotion or DemotionSpec(), stable)
