"""What routes limit, and what a gateway remembers of it: rate limits, gates and hedges outlive tables."""

from time import monotonic, perf_counter_ns
from typing import Any

from cluster.records import Snapshot
from nstarx.spec.route import RouteSpec
from router.admitting import Gate
from router.hedging import Hedging
from router.limiting import Limiting
from router.tally import Tally


class Restraints:
    """Of all routes of a gateway. Each part is kept as long as its specification stays."""

    def __init__(self) -> None:
        self.limitings: dict[str, Limiting] = {}
        """Rate limits by route."""
        self.gates: dict[tuple[str, str], Gate] = {}
        """Admission by route and version."""
        self.hedgings: dict[tuple[str, str, str], Hedging] = {}
        """By route, version and role."""
        self.closing: list[Gate] = []
        """Gates that routes have no more, and at which somebody waits."""
        self.gateways = 1
        """Gateways that share each rate limit."""

    def limiting(self, route: RouteSpec) -> Limiting | None:
        """A route's rate limits; those that stay as they are go on counting when others change."""
        if not route.rate_limits:
            return None
        known = self.limitings.get(route.name)
        if known is None or known.specs != route.rate_limits:
            known = self.limitings[route.name] = Limiting(route.rate_limits, self.gateways, known)
        return known

    def gate(self, route: RouteSpec, ref: str) -> Gate | None:
        """What lets a route's requests into a version."""
        if route.admission is None:
            return None
        gate = self.gates.get((route.name, ref))
        if gate is None or gate.spec != route.admission:
            if gate is not None:
                self.closing.append(gate)
            gate = self.gates[route.name, ref] = Gate(ref, route.admission, perf_counter_ns())
        return gate

    def hedging(self, route: RouteSpec, tally: Tally) -> Hedging | None:
        """What gives the calls of an arm a further try."""
        if route.hedge is None:
            return None
        key = route.name, tally.ref, tally.role
        hedging = self.hedgings.get(key)
        if hedging is None or hedging.spec != route.hedge:
            hedging = self.hedgings[key] = Hedging(route.hedge, tally, monotonic())
        return hedging

    def keep(self, snapshot: Snapshot) -> None:
        """Forget what belonged to routes and versions that are gone."""
        routes = {route.name: route for route in snapshot.routes}
        gated = {name for name, route in routes.items() if route.admission}
        hedged = {name for name, route in routes.items() if route.hedge}
        refs = {*snapshot.models, *(ref for route in snapshot.routes for ref in route.versions)}
        self.limitings = {n: limits for n, limits in self.limitings.items() if n in routes and routes[n].rate_limits}
        self.hedgings = {key: part for key, part in self.hedgings.items() if key[0] in hedged and key[1] in refs}
        gone = [key for key in self.gates if key[0] not in gated or key[1] not in refs]
        self.closing += [self.gates.pop(key) for key in gone]

    def share_among(self, gateways: int) -> None:
        """So many gateways grant a part of each rate limit."""
        if gateways != self.gateways:
            self.gateways = gateways
            for limiting in self.limitings.values():
                limiting.share_among(gateways)

    def open_gates(self, now: int) -> None:
        """Let in whoever may begin, and send away whoever has waited too long; every 20 ms. `now` in nanoseconds."""
        for gate in (*self.gates.values(), *self.closing):
            gate.sweep(now)
        if self.closing:
            self.closing = [gate for gate in self.closing if gate.waiting]

    def learn(self, now: float) -> None:
        """What hedges learn once a second. `now` is on the clock of `time.monotonic`."""
        for hedging in self.hedgings.values():
            hedging.refresh(now)

    def reading(self) -> dict[str, Any]:
        """A copy for the wire."""
        limits = [
            {"route": route, **limit} for route, limiting in self.limitings.items() for limit in limiting.reading()
        ]
        return {
            "limits": limits,
            "admission": [{"route": route, **gate.reading()} for (route, _), gate in self.gates.items()],
        }
