"""What tells two trials of a shadow apart: counts of one must not be added to those of another."""

from hashlib import sha256

from nstarx.spec.route import RouteSpec
from nstarx.spec.shadow import ShadowSpec

MEANINGLESS = frozenset(("version", "percent", "key", "max_in_flight", "ready"))
"""Settings that say how many pairs there are, or what to make of them, but not what one is counted as."""


def trial_of(route: RouteSpec, shadow: ShadowSpec, resets: int) -> str:
    """The name of a shadow's trial. Another one begins when somebody resets it, when pairs are compared by other rules,
    and when other versions answer the route's requests."""
    rules = shadow.model_dump_json(exclude=set(MEANINGLESS))
    answering = sorted({ref for split in route.splits for ref, weight in split.weights.items() if weight})
    return f"{resets}-{sha256(f'{rules} {answering}'.encode()).hexdigest()[:16]}"
