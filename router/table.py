"""The routing table: a snapshot compiled into a dictionary by raw path, so that deciding is a lookup and a turn."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

from cluster.records import Snapshot
from nstarx.spec.route import RouteSpec, SplitSpec
from nstarx.spec.version import VersionRef
from router.lanes import Backend
from router.split import turns
from router.tally import Tally

SAFE = "/+"
"""What stands in a path as it is: versions may have a `+` (semver.org 2.0.0, 10)."""


class Arm(NamedTuple):
    """One version as one route uses it."""

    backend: Backend
    tally: Tally
    head: bytes
    """Beginning of the head of its good answers, up to the value of Content-Length."""
    weight: float


class Target(NamedTuple):
    """What one path leads to."""

    route: RouteSpec
    arms: tuple[Arm, ...]
    next_arm: Callable[[], Arm]
    """The arm whose turn it is."""

    def live_arm(self) -> Arm | None:
        """An arm that has a replica, for when the one whose turn it was has none."""
        live = [arm for arm in self.arms if arm.backend.lanes and arm.weight]
        return max(live, key=lambda arm: arm.weight, default=None)


class Table(NamedTuple):
    """A compiled snapshot. `number` 0 is the empty one that a gateway starts with."""

    snapshot: Snapshot
    targets: dict[bytes, Target]
    """Raw path of an inference endpoint to what answers it."""


class Compiler:
    """Makes tables from snapshots. Backends and tallies outlive tables: lanes stay open, counts go on."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        self._made: dict[bytes, Target] = {}

    def compile(self, snapshot: Snapshot) -> Table:
        """The table for a snapshot. Routes name versions; a version without a route answers under its model's name."""
        routed = [(inference_path(route.model), route, "primary") for route in (*snapshot.routes, *_implicit(snapshot))]
        rules = {route.model: route for route in snapshot.routes}
        direct = [_direct(VersionRef.parse(ref), rules) for ref in snapshot.models]
        self._made = {path: self._target(path, route, role) for path, route, role in routed + direct}
        return Table(snapshot, self._made)

    def backend(self, ref: str) -> Backend:
        """The one backend of a version."""
        return self.backends.setdefault(ref, Backend(ref))

    def _target(self, path: bytes, route: RouteSpec, role: str) -> Target:
        """A route that did not change keeps its target, and with it whose turn it is."""
        made = self._made.get(path)
        if made and made.route == route:
            return made
        arms = tuple(self._arm(route.model, ref, role, weight) for ref, weight in route.split.weighted.items())
        return Target(route, arms, turns([(arm, arm.weight) for arm in arms]).__next__)

    def _arm(self, route: str, ref: str, role: str, weight: float) -> Arm:
        key = (route, ref, role)
        tally = self.tallies.get(key) or self.tallies.setdefault(key, Tally(*key))
        head = f"HTTP/1.1 200 OK\r\nx-nstarx-version: {ref}\r\ncontent-type: application/json\r\ncontent-length: "
        return Arm(self.backend(ref), tally, head.encode(), weight)


def inference_path(model: str, version: str | None = None) -> bytes:
    """Where a model is asked, as it stands in a request line."""
    middle = f"/versions/{quote(version, SAFE)}" if version else ""
    return f"/v2/models/{quote(model)}{middle}/infer".encode()


def _direct(ref: VersionRef, rules: Mapping[str, RouteSpec]) -> tuple[bytes, RouteSpec, str]:
    """The way to one version, past the split of its model's route, but by the other rules of it."""
    split = SplitSpec(weighted={str(ref): 1.0})
    rule = rules.get(ref.model)
    route = rule.model_copy(update={"split": split}) if rule else RouteSpec(model=ref.model, split=split)
    return inference_path(*ref), route, "direct"


def _implicit(snapshot: Snapshot) -> Iterator[RouteSpec]:
    """For each model without a route: its latest version, pre-releases only where there is nothing else."""
    routed = {route.model for route in snapshot.routes}
    latest: dict[str, VersionRef] = {}
    for ref in map(VersionRef.parse, snapshot.models):
        best = latest.get(ref.model)
        if not best or (not ref.is_prerelease, ref) > (not best.is_prerelease, best):
            latest[ref.model] = ref
    for model, ref in latest.items():
        if model not in routed:
            yield RouteSpec(model=model, split=SplitSpec(weighted={str(ref): 1.0}))
