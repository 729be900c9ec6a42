"""What shadows have shown, over all gateways. Keeps what gateways report; decides when one is ready to be a canary."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from judging.shadow_report import ShadowReport, report
from judging.shadow_tally import ShadowTally, merged_tally
from judging.shadow_trial import trial_of
from nstarx.errors import NStarXError
from nstarx.spec.route import RouteSpec
from nstarx.spec.shadow import ShadowSpec

log = logging.getLogger("nstarx.coordinator")

MOST_GATEWAYS = 64
"""Gateways whose tallies are kept apart; what the oldest have counted is added up, and they must not count it again."""
DEPARTED = ""
"""Stands for all gateways that will not report again."""

Resets = Mapping[str, Mapping[str, int]]
Key = tuple[str, str]
"""Route and version."""


class ShadowNotFound(NStarXError):
    """No route has this shadow."""

    status, code = 404, "shadow_not_found"

    def __init__(self, route: str, version: str) -> None:
        super().__init__(f"route '{route}' has no shadow {version}; `nstarx shadow list` shows those that there are")


class Verdict(NamedTuple):
    """A shadow has become ready to be a canary."""

    route: str
    version: str
    trial: str
    report: ShadowReport


class _Shadow:
    """One shadow's present trial."""

    def __init__(self, spec: ShadowSpec, trial: str) -> None:
        self.spec = spec
        self.trial = trial
        self.by_gateway: dict[str, ShadowTally] = {}
        self.fresh = False
        """Something has been heard since it was judged."""
        self.ready = False
        """It was found ready once."""

    def heard(self, gateway: str, tally: ShadowTally) -> None:
        self.by_gateway.pop(gateway, None)
        self.by_gateway[gateway] = tally
        self.fresh = True
        while len(self.by_gateway) > MOST_GATEWAYS:
            self.left(next(name for name in self.by_gateway if name != DEPARTED))

    def left(self, gateway: str) -> None:
        gone = self.by_gateway.pop(gateway, None)
        if gone is not None:
            self.by_gateway.setdefault(DEPARTED, ShadowTally(self.spec.examples)).merge(gone)

    def report(self) -> ShadowReport:
        return report(merged_tally(self.by_gateway.values()) or ShadowTally(self.spec.examples), self.spec)


class Shadows:
    """The shadows of all routes."""

    def __init__(self) -> None:
        self._shadows: dict[Key, _Shadow] = {}

    def follow(self, routes: Iterable[RouteSpec], resets: Resets) -> None:
        """Have exactly the shadows that routes name. Where another trial begins, what was counted is forgotten."""
        before, self._shadows = self._shadows, {}
        for route in routes:
            for spec in route.shadows:
                trial = trial_of(route, spec, resets.get(route.name, {}).get(spec.version, 0))
                shadow = before.get((route.name, spec.version))
                if shadow is None or shadow.trial != trial:
                    shadow = _Shadow(spec, trial)
                shadow.spec, shadow.fresh = spec, True
                self._shadows[route.name, spec.version] = shadow

    def heard(self, gateway: str, trials: Iterable[Mapping[str, Any]]) -> None:
        """What a gateway has counted so far, as `router.shadowing.Shadowing.news` gives it; not of former trials."""
        for heard in trials:
            shadow = self._shadows.get((heard["route"], heard["ref"]))
            if shadow is not None and shadow.trial == heard["trial"]:
                try:
                    shadow.heard(gateway, ShadowTally.from_document(orjson.loads(heard["tally"])))
                except (TypeError, KeyError, ValueError) as error:
                    # Its other counters must not suffer where a gateway is older or newer than the coordinator.
                    log.warning("gateway %s: %s", gateway, error, extra={"action": "trial_unreadable"})

    def left(self, gateway: str) -> None:
        """A gateway has said goodbye; what it counted stays."""
        for shadow in self._shadows.values():
            shadow.left(gateway)

    def judge(self) -> list[Verdict]:
        """Shadows that have become ready; each is named once in a trial."""
        found = []
        for key, shadow in self._shadows.items():
            if shadow.fresh and not shadow.ready:
                shadow.fresh = False
                seen = shadow.report()
                if seen.verdict == "ready":
                    shadow.ready = True
                    found.append(Verdict(*key, shadow.trial, seen))
        return found

    def reports(self) -> list[tuple[str, ShadowReport]]:
        """Of every shadow its route, and what it has shown."""
        return [(route, shadow.report()) for (route, _), shadow in self._shadows.items()]

    def report(self, route: str, version: str) -> ShadowReport:
        """What one shadow has shown. Raises ShadowNotFound."""
        self.check(route, version)
        return self._shadows[route, version].report()

    def check(self, route: str, version: str) -> None:
        """Raises ShadowNotFound where no route has such a shadow."""
        if (route, version) not in self._shadows:
            raise ShadowNotFound(route, version)
