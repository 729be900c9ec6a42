"""How commands show the splits of a route, whatever their kinds are."""

from typing import Any

from nstarx.spec.record import parse
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec


def splits(route: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """A route's splits in the order in which they are asked: a name, and version to weight.

    `route` is as a server tells it. Raises InvalidConfiguration when it knows more of routes than this command.
    """
    spec = parse(RouteSpec, route, f"route '{route.get('model')}' as the server tells it")
    rules = [(f"{spec.name}, rule {rule.name}{'' if rule.enabled else ' (off)'}", rule.split) for rule in spec.rules]
    return [(name, _weights(split)) for name, split in (*rules, (spec.name, spec.split))]


def _weights(split: SplitSpec) -> dict[str, float]:
    """How an experiment divides its requests, `nstarx experiments` says."""
    return {f"experiment {split.experiment}": 1.0} if split.experiment else split.weights
