"""The benchmark of hedges: routes that say what the table says, and a goal that can be missed."""

import pytest

from benchmarks.hedging import GOAL, PLAIN, POLICIES, Measured, policies_table, route
from benchmarks.overheads import EVERYTHING, ROUTE
from nstarx.spec.record import parse
from nstarx.spec.route import RouteSpec


def measured(policy: str, p99_ms: float, extra: float = 0.0) -> Measured:
    return Measured(policy, 6.0, p99_ms, 0, 2400, extra)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_valid_and_hedge_where_their_names_say_so(policy: str) -> None:
    spec = parse(RouteSpec, route(policy), policy)
    assert (spec.hedge is not None) == ("hedges" in policy or "both" in policy)
    assert (spec.balancing.ejection is not None) == ("ejection" in policy)


@pytest.mark.parametrize(("p99_ms", "extra", "met"), [(40.0, 0.05, "yes"), (41.0, 0.05, "no"), (40.0, 0.051, "no")])
def test_goal_is_half_of_the_longest_latencies_for_a_twentieth_more_calls(
    p99_ms: float, extra: float, met: str
) -> None:
    found = [measured(policy, 80.0) for policy in POLICIES if policy != GOAL] + [measured(GOAL, p99_ms, extra)]
    [row] = [line for line in policies_table(found).splitlines() if line.startswith(f"| {GOAL} |")]
    assert row.endswith(f"| {met} |")
    assert f"| {PLAIN} | 6.0 | 80.0 | 100% | 0.0% | 0 |  |" in policies_table(found)


def test_route_that_does_everything_is_valid() -> None:
    spec = parse(RouteSpec, ROUTE | EVERYTHING, "everything")
    assert spec.rules
    assert spec.rate_limits
    assert spec.admission
    assert spec.demotion
    assert spec.split.sticky
