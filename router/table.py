"""The routing table: a snapshot compiled into a dictionary by raw path, so that deciding is a lookup and a turn."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote
from zlib import crc32

from cluster.records import Snapshot
from judging.watched import roles, watched
from nstarx.spec.balancing import BalancingSpec
from nstarx.spec.cache import CacheSpec
from nstarx.spec.demotion import DemotionSpec
from nstarx.spec.fallback import RescueSpec
from nstarx.spec.route import RouteSpec, RuleSpec
from nstarx.spec.split import SplitSpec
from nstarx.spec.version import VersionRef
from router.admitting import admit
from router.arm import Arm
from router.budget import CallBudget, RetryBudget
from router.caching import ROLE, Caching, selecting
from router.exposures import Exposures
from router.fuse import Fuse, OnVerdict
from router.guide import Chooser, Guide, chooser, take_turn
from router.lanes import Backend
from router.matching import compile_match
from router.pool import OnDecision, Pool
from router.restraints import Restraints
from router.shadowing import Shadowing
from router.shares import Shares, effective, shares_of
from router.split import turns
from router.sticky import key_of
from router.tally import Tally

if TYPE_CHECKING:
    from router.journey import Ending, Stage
    from router.tries import Tries

    HashKey = Callable[[Tries], bytes | None]

SAFE = "/+"
"""What stands in a path as it is: versions may have a `+` (semver.org 2.0.0, 10)."""


class Address(NamedTuple):
    """What a client asks: a model or one version of it, behind a path prefix, at a host."""

    model: str
    version: str | None = None
    prefix: str = ""
    host: str = ""
    """Value of the header Host; "" where none is sent."""

    @property
    def path(self) -> bytes:
        """Where it is asked for inference, as it stands in a request line."""
        middle = f"/versions/{quote(self.version, SAFE)}" if self.version else ""
        return f"{self.prefix}/v2/models/{quote(self.model)}{middle}/infer".encode()


class Target(NamedTuple):
    """What one path leads to."""

    route: RouteSpec
    shares: Shares
    arms: tuple[Arm, ...]
    """Those of the route's own split."""
    next_arm: Callable[[], Arm]
    """The arm whose turn it is."""
    guide: Guide
    """What chooses an arm where the request itself has a say: rules and keys."""
    stages: "tuple[Stage, ...]"
    """What a request goes through before it is sent; none where the arm whose turn it is simply answers."""
    endings: "tuple[Ending, ...]"
    """What happens after an answer."""
    retries: RetryBudget
    rescues: CallBudget
    fallback: Arm | None
    cache: Caching | None
    hash_key: "HashKey | None"
    """Whose requests go to one replica; None where load alone decides."""
    try_ns: int | None
    """What one try may take; None is as long as the request."""
    patience_ns: int
    """What a try of the route takes at the most; a replica that had so long has failed it."""

    def may_rescue(self) -> bool:
        """Take a rescue from the budget, if there is one left."""
        return self.rescues.take(sum([arm.tally.started for arm in self.arms]))

    def live_arm(self) -> Arm | None:
        """An arm that has a replica, for when the one whose turn it was has none: a demoted one before nobody."""
        live = [arm for arm in self.arms if arm.backend.lanes]
        found = max([arm for arm in live if arm.weight or arm.stands_by], key=_weight, default=None)
        if found is None and self.fallback and self.fallback.backend.lanes:
            return self.fallback
        return found or next((arm for arm in live if arm.demoted), None)


class Addressed(NamedTuple):
    """What a path leads to where routes differ by host."""

    hosts: dict[bytes, Target]
    default: Target | None

    def of(self, host: bytes) -> Target | None:
        """The target for a value of the header Host."""
        return self.hosts.get(host.lower(), self.default)


class Table(NamedTuple):
    """A compiled snapshot. `number` 0 is the empty one that a gateway starts with."""

    snapshot: Snapshot
    targets: dict[bytes, Target | Addressed]
    """Raw path of an inference endpoint to what answers it."""

    prefixes: frozenset[str] = frozenset()
    """Path prefixes that routes have."""

    def at(self, path: bytes, host: bytes = b"") -> Target | None:
        """What answers at a path, for a value of the header Host."""
        found = self.targets.get(path)
        return found.of(host) if isinstance(found, Addressed) else found

    def to(self, address: Address) -> Target | None:
        """What answers at an address."""
        return self.at(address.path, address.host.encode("latin-1", "replace"))

    def all_targets(self) -> Iterator[Target]:
        """Every target, whatever leads to it."""
        for entry in self.targets.values():
            if isinstance(entry, Target):
                yield entry
            else:
                yield from entry.hosts.values()
                if entry.default:
                    yield entry.default


Place = tuple[bytes, str]
"""A path, and the host that it is for; "" for all hosts."""


class _Plan(NamedTuple):
    """What a target is made from."""

    route: RouteSpec
    shares: Shares
    role: str | None
    """Of all its arms; None leaves it to the splits."""
    fuses: Mapping[str, Fuse]


class Compiler:
    """Makes tables from snapshots. Backends, tallies and fuses outlive tables: lanes stay open, counts go on."""

    def __init__(
        self,
        on_verdict: OnVerdict = lambda route, ref, verdict: None,
        on_failure: Callable[[], None] = lambda: None,
        shadowing: Shadowing | None = None,
        on_spent: Callable[[str], None] = lambda route: None,
        exposures: Exposures | None = None,
        tracing: "Stage | None" = None,
        on_ejection: OnDecision = lambda ref, decision: None,
    ) -> None:
        """`on_spent` is told of routes whose budget for rescues is spent; `tracing` is every request's first stage."""
        self.shadowing = shadowing or Shadowing()
        self.backends: dict[str, Backend] = {}
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        self.fuses: dict[tuple[str, str], Fuse] = {}
        self._on_verdict = on_verdict
        self._on_failure = on_failure
        self._on_spent = on_spent
        self.rescues: dict[str, tuple[RescueSpec, CallBudget]] = {}
        """Route to its budget for rescues."""
        self.decisions: dict[str, dict[str, int]] = {}
        """Route and rule to how many requests it has decided about."""
        self.restraints = Restraints()
        self._on_ejection = on_ejection
        self.caches: dict[str, Caching] = {}
        """Route to the cache of its answers."""
        self._closing: list[Caching] = []
        """Caches that routes have no more, and in which somebody waits."""
        self._exposures = exposures or Exposures()
        self._tracing = tracing
        self._made: dict[Place, Target] = {}

    def compile(self, snapshot: Snapshot, blown: Iterable[tuple[str, str]] = ()) -> Table:
        """The table for a snapshot. Routes name versions; a version without a route answers under its model's name.

        `blown` are the routes and versions that this gateway has found guilty, and nobody has answered yet.
        """
        shares = shares_of(snapshot.standings, blown)
        self._tend_caches(snapshot.routes)
        self.shadowing.follow(snapshot.routes, snapshot.shadow_resets, self.backend, self._tally)
        made: dict[Place, Target] = {}
        for route in (*snapshot.routes, *_implicit(snapshot)):
            for place in _places(route):
                made[place] = self._target(place, route, shares.get(route.name, {}))
        for place, route in _direct(snapshot):
            made.setdefault(place, self._target(place, route, {}, "direct"))
        if len(made) != len(self._made) or any(self._made.get(place) is not target for place, target in made.items()):
            self._forget_fuses(made.values())
        self._made = made
        self.restraints.keep(snapshot)
        for backend in self.backends.values():
            backend.keep_pools({route.balancing for route in snapshot.routes})
        return Table(snapshot, _by_path(made), frozenset(route.path_prefix for route in snapshot.routes))

    def backend(self, ref: str) -> Backend:
        """The one backend of a version."""
        return self.backends.get(ref) or self.backends.setdefault(ref, Backend(ref, self._on_ejection))

    def pools(self) -> Iterator[Pool]:
        """Every version's replicas, by every policy that routes have for it."""
        for backend in self.backends.values():
            yield from backend.pools.values()

    def _target(self, place: Place, route: RouteSpec, shares: Shares, role: str | None = None) -> Target:
        """A route that did not change keeps its target, and with it whose turn it is."""
        made, cache = self._made.get(place), self.caches.get(route.name) if route.cache else None
        if made and made.route == route and made.shares == shares and made.cache is cache:
            return made
        plan = _Plan(route, shares, role, {} if role else self._fuses(route))
        guide = self._guide(plan)
        fallback = route.fallback.version if route.fallback else None
        return Target(
            route=route,
            shares=shares,
            arms=guide.default.arms,
            next_arm=turns([(arm, arm.weight) for arm in guide.default.arms], _seed(route.name)).__next__,
            guide=guide,
            stages=self._stages(route, guide, cache),
            endings=self.shadowing.of(route),
            retries=RetryBudget(route.retry),
            rescues=self._rescues(route),
            fallback=self._bare_arm(route, fallback, "fallback") if fallback else None,
            cache=cache,
            hash_key=hash_key(route.balancing),
            try_ns=int(route.retry.per_try_timeout_s * 1e9) if route.retry.per_try_timeout_s else None,
            patience_ns=int((route.retry.per_try_timeout_s or route.timeout_s) * 1e9),
        )

    def _stages(self, route: RouteSpec, guide: Guide, cache: Caching | None) -> "tuple[Stage, ...]":
        """The order in which things happen to a request; nothing but turns needs none of it."""
        if _is_plain(route) and not self._tracing:
            return ()
        chosen = route.rules or route.split.sticky or route.split.trial
        stages: list[Stage | None] = [
            self._tracing,
            self.restraints.limiting(route),
            guide if chosen else take_turn,
            cache,
            admit if route.admission else None,
        ]
        return tuple([stage for stage in stages if stage is not None])

    def _guide(self, plan: "_Plan") -> Guide:
        route = plan.route
        rules = [
            (rule.name, compile_match(rule.match, rule_salt(route, rule)), self._ruled(plan, rule))
            for rule in route.rules
            if rule.enabled and plan.role is None
        ]
        counts = self.decisions.setdefault(route.name, {}) if rules else {}
        return Guide(rules, self._chooser(plan, route.split, route.name), counts, self._exposures)

    def _ruled(self, plan: "_Plan", rule: RuleSpec) -> Chooser:
        """What answers a rule's requests: its own split, or the route's where demotions leave nobody of it."""
        if any(effective(rule.split, plan.shares).values()):
            return self._chooser(plan, rule.split, rule_salt(plan.route, rule), rule.name)
        return self._chooser(plan, plan.route.split, plan.route.name, rule.name)

    def _chooser(self, plan: "_Plan", split: SplitSpec, salt: str, rule: str | None = None) -> Chooser:
        return chooser(split, self._arms(plan, split), salt, rule, _seed(salt))

    def _arms(self, plan: "_Plan", split: SplitSpec) -> tuple[Arm, ...]:
        """A split's arms. Where demotions leave nobody, they are ignored: something has to answer."""
        weights = effective(split, plan.shares)
        if not any(weights.values()):
            weights = split.weights
        return tuple(self._arm(plan, split, ref, weight) for ref, weight in weights.items())

    def _arm(self, plan: "_Plan", split: SplitSpec, ref: str, weight: float) -> Arm:
        route, role = plan.route, plan.role
        arm = self._bare_arm(route, ref, role or split.role(ref), weight)
        arm.demoted = not weight and split.weights[ref] > 0
        arm.stands_by = bool(split.candidates) and ref == split.stable
        arm.fuse = plan.fuses.get(ref)
        if role is None and ref in split.candidates and split.stable and route.rescue.enabled and route.idempotent:
            arm.rescuer = self._bare_arm(route, split.stable, "rescue")
        return arm

    def _bare_arm(self, route: RouteSpec, ref: str, role: str, weight: float = 0.0) -> Arm:
        """An arm that nobody watches or rescues."""
        backend, tally = self.backend(ref), self._tally(route.name, ref, role)
        arm = Arm(backend, tally, weight, backend.pool(route.balancing))
        arm.gate = self.restraints.gate(route, ref)
        arm.hedging = self.restraints.hedging(route, tally)
        return arm

    def _fuses(self, route: RouteSpec) -> dict[str, Fuse]:
        """A route's fuses by version, each kept as long as its policy and what it looks at stay."""
        policy = route.demotion
        if policy is None:
            return {}
        return {ref: self._fuse(route, ref, watch.reference, policy) for ref, watch in watched(route).items()}

    def _fuse(self, route: RouteSpec, ref: str, reference: str | None, policy: DemotionSpec) -> Fuse:
        own, beside = self._tallies(route, ref), self._tallies(route, reference)
        fuse = self.fuses.get((route.name, ref))
        if fuse is None or (fuse.tallies, fuse.reference, fuse.policy) != (own, beside, policy):
            fuse = self.fuses[route.name, ref] = Fuse(own, beside, policy, self._on_verdict, self._on_failure)
        return fuse

    def _forget_fuses(self, targets: Iterable[Target]) -> None:
        """A version that leaves a route and comes back is judged by what it does from then on."""
        used = {(target.route.name, ref) for target in targets for ref in watched(target.route)}
        self.fuses = {key: fuse for key, fuse in self.fuses.items() if key in used}

    def _rescues(self, route: RouteSpec) -> CallBudget:
        """The one budget of a route, kept as long as its size stays: a demotion must not fill it again."""
        spec, known = route.rescue, self.rescues.get(route.name)
        if known and known[0] == spec:
            return known[1]
        budget = CallBudget(spec.budget_percent, spec.burst, spec.burst, lambda: self._on_spent(route.name))
        self.rescues[route.name] = spec, budget
        return budget

    def _tallies(self, route: RouteSpec, ref: str | None) -> tuple[Tally, ...]:
        """A version's tallies, one for each role that it has in the route's splits."""
        return tuple(self._tally(route.name, ref, role) for role in roles(route, ref)) if ref else ()

    # Caches

    def sweep_caches(self, now: int) -> None:
        """Let nobody wait too long, and keep nothing too long."""
        for cache in (*self.caches.values(), *self._closing):
            cache.sweep(now)
        if self._closing:
            self._closing = [cache for cache in self._closing if cache.busy]

    def purge_caches(self, word: str | None) -> None:
        """Drop the answers that bear a surrogate key; all of them for None."""
        for cache in self.caches.values():
            cache.purge(word)

    def _tend_caches(self, routes: Iterable[RouteSpec]) -> None:
        """A cache outlives everything but a change of how it keeps answers, and of what these depend on."""
        before, self.caches = self.caches, {}
        for route in routes:
            if route.cache:
                made = before.get(route.name)
                kept = made and (made.spec, made.selecting) == (route.cache, selecting(route))
                self.caches[route.name] = made if made and kept else self._cache(route, route.cache)
        self._closing += [cache for name, cache in before.items() if self.caches.get(name) is not cache]

    def _cache(self, route: RouteSpec, spec: CacheSpec) -> Caching:
        name = route.name
        return Caching(
            spec, name, selecting(route), lambda ref: Arm(self.backend(ref), self._tally(name, ref, ROLE), 0.0)
        )

    def _tally(self, route: str, ref: str, role: str) -> Tally:
        key = (route, ref, role)
        return self.tallies.get(key) or self.tallies.setdefault(key, Tally(*key))


def _is_plain(route: RouteSpec) -> bool:
    """Whether all that a route does is done by exchanges alone."""
    by_turns = not route.rules and route.split.sticky is None and route.split.trial is None
    by_load = route.balancing.policy == "least_request" and route.retry.per_try_timeout_s is None
    extras = route.rate_limits, route.cache, route.admission, route.hedge, route.shadows
    return by_turns and by_load and not any(extras)


def hash_key(spec: BalancingSpec) -> "HashKey | None":
    """What finds the key that ties a request to a replica: the policy's own, or that of the sticky split."""
    if spec.policy != "ring_hash":
        return None
    if spec.key is None:
        return lambda tries: tries.key
    find = key_of(spec.key)
    return lambda tries: find(tries.facts)


def _places(route: RouteSpec, version: str | None = None) -> list[Place]:
    path = Address(route.model, version, route.path_prefix).path
    return [(path, host) for host in route.hosts or ("",)]


def _direct(snapshot: Snapshot) -> Iterator[tuple[Place, RouteSpec]]:
    """The ways to one version, past the split of its model's routes, but by their other rules."""
    by_model: dict[str, list[RouteSpec]] = {}
    for route in snapshot.routes:
        by_model.setdefault(route.model, []).append(route)
    for ref in map(VersionRef.parse, snapshot.models):
        alone = {"split": SplitSpec(weighted={str(ref): 1.0}), "rules": (), "demotion": None, "shadows": ()}
        routes = by_model.get(ref.model, ())
        for route in routes:
            if route.direct:
                yield from ((place, route.model_copy(update=alone)) for place in _places(route, ref.version))
        if not any(not route.hosts and not route.path_prefix for route in routes):
            route = RouteSpec(model=ref.model, split=alone["split"])  # type: ignore[arg-type]
            yield from ((place, route) for place in _places(route, ref.version))


def _implicit(snapshot: Snapshot) -> Iterator[RouteSpec]:
    """For each model without a route: its latest version, pre-releases only where there is nothing else."""
    routed = {route.model for route in snapshot.routes if not route.hosts and not route.path_prefix}
    latest: dict[str, VersionRef] = {}
    for ref in map(VersionRef.parse, snapshot.models):
        best = latest.get(ref.model)
        if not best or (not ref.is_prerelease, ref) > (not best.is_prerelease, best):
            latest[ref.model] = ref
    for model, ref in latest.items():
        if model not in routed:
            yield RouteSpec(model=model, split=SplitSpec(weighted={str(ref): 1.0}))


def _by_path(made: dict[Place, Target]) -> dict[bytes, Target | Addressed]:
    by_path: dict[bytes, Target | Addressed] = {path: target for (path, host), target in made.items() if not host}
    for (path, host), target in made.items():
        if host:
            entry = by_path.get(path)
            if not isinstance(entry, Addressed):
                entry = by_path[path] = Addressed({}, entry)
            entry.hosts[host.encode()] = target
    return by_path


def rule_salt(route: RouteSpec, rule: RuleSpec) -> str:
    """What makes the keys of one rule fall otherwise than those of others."""
    return f"{route.name}/{rule.name}"


def _weight(arm: Arm) -> float:
    return arm.weight


def _seed(name: str) -> int:
    return crc32(name.encode())
