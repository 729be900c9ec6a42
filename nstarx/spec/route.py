"""Routes: what a client addresses, and the split that answers it."""

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from nstarx.spec.admission import AdmissionSpec
from nstarx.spec.balancing import BalancingSpec
from nstarx.spec.cache import CacheSpec
from nstarx.spec.demotion import DemotionSpec
from nstarx.spec.experiment import ExperimentsDocument, ExperimentSpec
from nstarx.spec.fallback import FallbackSpec, RescueSpec
from nstarx.spec.match import Match
from nstarx.spec.rate_limit import RateLimitSpec
from nstarx.spec.record import Record
from nstarx.spec.retry import HedgeSpec, RetrySpec
from nstarx.spec.shadow import ShadowSpec
from nstarx.spec.split import SplitSpec
from nstarx.spec.trial import Trial
from nstarx.spec.version import Name

HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?\Z")
PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+\Z")


def valid_host(host: str) -> str:
    """A value of the header Host, in lower case. Raises ValueError with an example."""
    if not HOST.match(host.lower()):
        raise ValueError(f"'{host}' is not a host; write it like models.example.com, with :port where clients send one")
    return host.lower()


def valid_prefix(prefix: str) -> str:
    """What stands before `/v2/`. Raises ValueError with an example."""
    if prefix and not PREFIX.match(prefix):
        raise ValueError(f"'{prefix}' is not a path prefix; write it like /team-a, without a slash at its end")
    return prefix


class RuleSpec(Record):
    """Requests that are answered by a split of their own."""

    name: Name
    """What `nstarx routes explain` and records call it."""
    match: Match
    """Which requests it is for."""
    split: SplitSpec
    """What answers them."""
    enabled: bool = True
    """False switches the rule off, and leaves it in place."""


class RouteSpec(Record):
    """Requests for `{path_prefix}/v2/models/{model}/infer`, answered by a split."""

    model: Name
    """The name that clients ask for."""
    hosts: tuple[Annotated[str, AfterValidator(valid_host)], ...] = Field(default=(), strict=False)
    """Values of the header Host that the route is for; none is all that no other route names."""
    path_prefix: Annotated[str, AfterValidator(valid_prefix)] = ""
    """What stands before `/v2/` in the path."""
    rules: tuple[RuleSpec, ...] = Field(default=(), strict=False)
    """The first rule that matches decides; where none does, `split`."""
    split: SplitSpec
    """How requests are divided."""
    direct: bool = True
    """Whether a version in the path bypasses rules and split; false answers such requests 404."""
    timeout_s: Annotated[float, Field(gt=0, le=86400, strict=False)] = 30.0
    """Time to the answer when the request names no shorter one."""
    idempotent: bool = True
    """False: a request that a replica may have begun is never repeated, nor rescued."""
    rate_limits: tuple[RateLimitSpec, ...] = Field(default=(), strict=False)
    """How many requests a caller may make; a request needs the grant of each."""
    admission: AdmissionSpec | None = None
    """How many requests each version gets at a time, and who waits meanwhile; null lets all of them through."""
    balancing: BalancingSpec = BalancingSpec()
    """Which replica of a version is asked, and when a sick one is not."""
    retry: RetrySpec = RetrySpec()
    """Further replicas, when one dies with the request in hand or has no room."""
    hedge: HedgeSpec | None = None
    """A second replica beside the first, when that takes long; null waits. Needs an idempotent route."""
    demotion: DemotionSpec | None = DemotionSpec()
    """When a version of the split is taken out of traffic; null watches nobody."""
    rescue: RescueSpec = RescueSpec()
    """How the stable version answers for a candidate that fails."""
    fallback: FallbackSpec | None = None
    """What answers when none of the split's versions can."""
    cache: CacheSpec | None = None
    """How long good answers are given again to the same question; null asks a replica each time."""
    shadows: tuple[ShadowSpec, ...] = Field(default=(), max_length=8, strict=False)
    """Versions that get copies of its requests, and answer nobody."""

    @property
    def splits(self) -> tuple[SplitSpec, ...]:
        """Every split that may answer."""
        return (self.split, *(rule.split for rule in self.rules))

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that may answer, each once."""
        refs = [ref for split in self.splits for ref in split.weights]
        spare = [self.fallback.version] if self.fallback and self.fallback.version else []
        return tuple(dict.fromkeys([*refs, *spare]))

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments that its splits name, each once."""
        return tuple(dict.fromkeys(split.experiment for split in self.splits if split.experiment))

    def bound(self, experiments: Mapping[str, ExperimentSpec], trials: Mapping[str, Trial]) -> Self:
        """The same route, knowing the experiments that its splits name. Those have no versions without."""
        if not self.experiments:
            return self
        rules = tuple(rule.model_copy(update={"split": rule.split.bound(experiments, trials)}) for rule in self.rules)
        return self.model_copy(update={"split": self.split.bound(experiments, trials), "rules": rules})

    @property
    def name(self) -> str:
        """What tells the route from others: its model, behind prefix and hosts where it has any."""
        return f"{'|'.join(self.hosts)}{self.path_prefix}{'/' if self.hosts or self.path_prefix else ''}{self.model}"

    @model_validator(mode="after")
    def _rule_names_differ(self) -> Self:
        if twice := _repeated([rule.name for rule in self.rules]):
            raise ValueError(f"rules: {', '.join(twice)} is the name of more than one rule")
        return self

    @model_validator(mode="after")
    def _public_answers_are_nobodys_own(self) -> Self:
        """A CDN would hand one client's cookie or assignment to all others, and can't know whose address it was."""
        keys = [split.sticky for split in self.splits if split.sticky]
        own = [str(key) for key in keys if key.cookie or key.client_address]
        own += [f"experiment '{split.experiment}'" for split in self.splits if split.experiment]
        if own and self.cache and self.cache.public:
            raise ValueError(
                f"cache.public: must be false where versions stick to {own[0]}; a CDN can't tell those apart"
            )
        return self

    @model_validator(mode="after")
    def _shadows_can_be_compared(self) -> Self:
        """A version of the split may be a shadow too: a side that is not live, a candidate before its first percent."""
        versions = [shadow.version for shadow in self.shadows]
        if twice := _repeated(versions):
            raise ValueError(f"shadows: {', '.join(twice)} is given more than once")
        if len(self.versions) == 1 and self.versions[0] in versions:
            raise ValueError(f"shadows: {self.versions[0]} is the route's only version; it can't be its own shadow")
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if twice := _repeated([limit.name for limit in self.rate_limits]):
            raise ValueError(f"rate_limits: {', '.join(twice)} is the name of more than one limit; give each its own")
        if self.hedge and not self.idempotent:
            raise ValueError("hedge: repeats requests, so the route must be idempotent")
        hashed = self.balancing.policy == "ring_hash" and self.balancing.key is None
        if hashed and not any(split.sticky or split.experiment for split in self.splits):
            raise ValueError("balancing: ring_hash needs a key, its own or that of a sticky split")
        return self


def bind(
    routes: tuple[RouteSpec, ...], experiments: tuple[ExperimentSpec, ...], trials: Mapping[str, Trial]
) -> tuple[RouteSpec, ...]:
    """The routes, knowing the experiments that they name and how these stand."""
    known = {experiment.name: experiment for experiment in experiments}
    return tuple(route.bound(known, trials) for route in routes)


class RoutesDocument(ExperimentsDocument):
    """A routes file: `nstarx routes apply FILE`."""

    routes: tuple[RouteSpec, ...] = Field(default=(), strict=False)

    def bound(self, trials: Mapping[str, Trial] = {}) -> tuple[RouteSpec, ...]:
        """The routes, knowing the experiments that they name and how these stand."""
        return bind(self.routes, self.experiments, trials)

    @model_validator(mode="after")
    def _one_route_an_address(self) -> Self:
        addresses = [
            f"{host}{route.path_prefix}/{route.model}" if host or route.path_prefix else route.model
            for route in self.routes
            for host in route.hosts or ("",)
        ]
        if twice := _repeated(addresses):
            raise ValueError(f"routes: {', '.join(twice)} has more than one route")
        return self

    @model_validator(mode="after")
    def _experiments_can_answer(self) -> Self:
        known = {experiment.name: experiment for experiment in self.experiments}
        for route in self.routes:
            for name in route.experiments:
                if name not in known:
                    raise ValueError(f"routes: {route.name} names the experiment '{name}', which is not in experiments")
                if labels := [arm for arm in known[name].arms if "@" not in arm]:
                    raise ValueError(
                        f"experiments: '{name}' divides route {route.name}, so its arms have to be versions like "
                        f"{route.model}@1.2.0, not labels like '{labels[0]}'"
                    )
        return self


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
