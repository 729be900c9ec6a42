"""Where the versions of all routes stand, by the counts of all gateways. Decides; whoever asks carries it out."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from judging.standing import Judged, Standing, advance, starts_anew, undone
from judging.tallied import tallied
from judging.verdict import Demote, Evidence
from judging.watch import Survey
from judging.watched import Watched, refusal, watched
from judging.windows import Counts
from nstarx.errors import NStarXError
from nstarx.spec.demotion import DemotionSpec
from nstarx.spec.route import RouteSpec

Standings = Mapping[str, Mapping[str, Standing]]
"""Route to version to where it stands."""


class DemotionNotFound(NStarXError):
    """There is no such demotion, or nothing left of it to undo."""

    status, code = 404, "demotion_not_found"

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no {what}; `nstarx demotions list` shows those that there are")


class Change(NamedTuple):
    """A version stands elsewhere than before."""

    route: RouteSpec
    version: str
    before: Standing
    after: Standing
    refusal: str | None = None
    """Why it was not demoted, though the evidence was enough."""

    @property
    def shows(self) -> bool:
        """Whether gateways have to know."""
        return (self.before.state, self.before.percent) != (self.after.state, self.after.percent)


class Demotions:
    """The watch over all routes. Times are seconds of Unix time, passed in."""

    def __init__(self) -> None:
        self.standings: dict[str, dict[str, Standing]] = {}
        self._routes: dict[str, RouteSpec] = {}
        self._surveys: dict[tuple[str, str], Survey] = {}
        self._watched: dict[tuple[str, str], Watched] = {}

    def follow(self, routes: Iterable[RouteSpec], now: float) -> None:
        """Watch these routes from now on. A version whose policy and comparison stay is watched as before."""
        self._routes = {route.name: route for route in routes}
        self._watched = {
            (name, ref): watch for name, route in self._routes.items() for ref, watch in watched(route).items()
        }
        self._surveys = {key: self._survey(key, watch, now) for key, watch in self._watched.items()}
        self.standings = {
            name: kept
            for name, versions in self.standings.items()
            if (kept := {ref: standing for ref, standing in versions.items() if (name, ref) in self._watched})
        }

    def _survey(self, key: tuple[str, str], watch: Watched, now: float) -> Survey:
        policy, made = self._policy(key[0]), self._surveys.get(key)
        if made and (made.policy, made.stable) == (policy, watch.reference):
            return made
        return Survey(watch.ref, policy, watch.reference, now)

    def _policy(self, route: str) -> DemotionSpec:
        return self._routes[route].demotion or DemotionSpec()

    def adopt(self, standings: Standings) -> None:
        """Take over where versions stood in a former life."""
        self.standings = {name: dict(versions) for name, versions in standings.items()}

    def shown(self) -> dict[str, dict[str, Standing]]:
        """The standings of versions that have something against them, or had."""
        shown = {
            name: {ref: standing for ref, standing in versions.items() if standing != Standing()}
            for name, versions in self.standings.items()
        }
        return {name: versions for name, versions in shown.items() if versions}

    def heard(self, gateway: str, tallies: Iterable[Mapping[str, Any]], now: float) -> None:
        """A gateway's cumulative counters, as `Tally.reading` gives them."""
        by_key = {(tally["route"], tally["ref"], tally["role"]): tally for tally in tallies}
        for (name, ref), survey in self._surveys.items():
            watch = self._watched[name, ref]
            own = by_key.get((name, ref, watch.split.role(ref)))
            if own is None:
                continue
            other = watch.reference
            beside = by_key.get((name, other, watch.split.role(other))) if other else None
            survey.report(gateway, _counts(own), now, _counts(beside) if beside else Counts(), own["failing"])

    def left(self, gateway: str) -> None:
        """A gateway is gone; what it counted stays."""
        for survey in self._surveys.values():
            survey.left(gateway)

    def judge(self, now: float) -> list[Change]:
        """What becomes of every version by what has been heard. To be asked once a second, and after a failure."""
        return [
            change
            for (name, ref), survey in self._surveys.items()
            if (change := self._advance(name, ref, survey.judge(now), now))
        ]

    def accuse(self, route: str, version: str, evidence: Evidence, now: float) -> Change | None:
        """What becomes of a version that one gateway has found guilty."""
        if (route, version) not in self._watched:
            return None
        return self._advance(route, version, Demote(evidence=evidence), now)

    def undo(self, route: str, version: str, now: float) -> Change:
        """A person puts a version back. Raises DemotionNotFound when it has all of its traffic."""
        before = self._standing(route, version)
        if (route, version) not in self._watched or before.state not in ("demoted", "given_up", "probation"):
            raise DemotionNotFound(f"demotion of {version} on route '{route}' that could be undone")
        return self._stand(route, version, undone(self._policy(route), now), now)

    def _standing(self, route: str, version: str) -> Standing:
        return self.standings.get(route, {}).get(version, Standing())

    def _advance(self, route: str, version: str, verdict: Judged, now: float) -> Change | None:
        before, spec = self._standing(route, version), self._routes[route]
        why = refusal(spec, version, self.standings.get(route, {})) if isinstance(verdict, Demote) else None
        after = advance(before, verdict, self._policy(route), now, why)
        if after == before:
            return None
        return self._stand(route, version, after, now)._replace(refusal=why)

    def _stand(self, route: str, version: str, after: Standing, now: float) -> Change:
        before = self._standing(route, version)
        self.standings.setdefault(route, {})[version] = after
        if starts_anew(before, after):
            self._surveys[route, version].reset(now)
        return Change(self._routes[route], version, before, after)


def _counts(tally: Mapping[str, Any]) -> Counts:
    codes = {int(code): number for code, number in tally["codes"].items()}
    return tallied(codes, tally["invalid"], tally["lost"], tally["latency"])
