"""Where the versions of all routes stand, by the counts of all gateways. Decides; whoever asks carries it out."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from judging.standing import Judged, Standing, advance, share, starts_anew, undone
from judging.tallied import tallied
from judging.verdict import Demote, Evidence
from judging.watch import Survey
from judging.watched import Watched, refusal, roles, watched
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
        self._roles: dict[tuple[str, str], tuple[str, ...]] = {}
        self._watched: dict[tuple[str, str], Watched] = {}
        self._own: set[tuple[str, str]] = set()
        """Routes and versions whose standing was decided in this life."""

    def follow(self, routes: Iterable[RouteSpec], now: float) -> None:
        """Watch these routes from now on. A version whose policy and comparison stay is watched as before."""
        self._routes = {route.name: route for route in routes}
        self._watched = {
            (name, ref): watch for name, route in self._routes.items() for ref, watch in watched(route).items()
        }
        self._surveys = {key: self._survey(key, watch, now) for key, watch in self._watched.items()}
        self._roles = {
            (name, ref): roles(route, ref)
            for name, route in self._routes.items()
            for ref in dict.fromkeys(ref for split in route.splits for ref in split.weights)
        }
        self._own &= self._watched.keys()
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
        """Take over where versions stood in a former life, but for what was decided in this one."""
        own = {(route, ref): self._standing(route, ref) for route, ref in self._own}
        self.standings = {name: dict(versions) for name, versions in standings.items()}
        for (route, ref), standing in own.items():
            self.standings.setdefault(route, {})[ref] = standing

    def shown(self) -> dict[str, dict[str, Standing]]:
        """The standings of versions that have something against them, or had."""
        shown = {
            name: {ref: standing for ref, standing in versions.items() if standing != Standing()}
            for name, versions in self.standings.items()
        }
        return {name: versions for name, versions in shown.items() if versions}

    def warnings(self, routes: Iterable[RouteSpec]) -> tuple[str, ...]:
        """Sentences about versions that routes name, and that get less than their share because of how they stand."""
        return tuple(
            f"route '{route.name}' names {ref}, which is {_words(standing)}; `nstarx demotions list` says why"
            for route in routes
            for ref, standing in self.standings.get(route.name, {}).items()
            if ref in route.versions and share(standing) < 1
        )

    def heard(self, gateway: str, tallies: Iterable[Mapping[str, Any]], now: float) -> list[tuple[str, str]]:
        """A gateway's cumulative counters, as `Tally.reading` gives them. Routes and versions that have failed since
        they were judged."""
        by_version: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for tally in tallies:
            if tally["role"] in self._roles.get((tally["route"], tally["ref"]), ()):
                by_version.setdefault((tally["route"], tally["ref"]), []).append(tally)
        for (name, ref), survey in self._surveys.items():
            if own := by_version.get((name, ref)):
                beside = by_version.get((name, survey.stable or ""), [])
                failing = [id for tally in own for id in tally["failing"]]
                survey.report(gateway, _counts(own), now, _counts(beside), failing)
        return [key for key, survey in self._surveys.items() if survey.has_news]

    def left(self, gateway: str) -> None:
        """A gateway is gone; what it counted stays."""
        for survey in self._surveys.values():
            survey.left(gateway)

    def judge(self, now: float, among: Iterable[tuple[str, str]] | None = None) -> list[Change]:
        """What becomes of versions by what has been heard: of all once a second, of some as soon as they fail."""
        return [
            change
            for name, ref in (self._surveys if among is None else among)
            if (change := self._advance(name, ref, self._surveys[name, ref].judge(now), now))
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
        self._own.add((route, version))
        self.standings.setdefault(route, {})[version] = after
        if starts_anew(before, after):
            self._surveys[route, version].reset(now)
        return Change(self._routes[route], version, before, after)


def _words(standing: Standing) -> str:
    if standing.state == "probation":
        return f"on probation with {standing.percent:g} % of its weight"
    return standing.state.replace("_", " ")


def _counts(tallies: list[Mapping[str, Any]]) -> Counts:
    """What a version's tallies say together."""
    counts = [
        tallied(
            {int(code): number for code, number in tally["codes"].items()},
            tally["invalid"],
            tally["lost"],
            tally["latency"],
            tally.get("spared", {}),
        )
        for tally in tallies
    ]
    return counts[0] if len(counts) == 1 else Counts.total(counts)
