"""The border to the coordinator: what gateways, replicas and the command line ask it, and what it answers.

`cluster.coordinator.Coordinator` answers in memory, `cluster.ray_coordination.RayCoordination` through a Ray actor;
one contract test holds both.
"""

from hashlib import sha256
from typing import Any, Protocol, Self

import orjson

from cluster.events import Event, EventKind
from cluster.experiments import ExperimentStatus, Exposed
from cluster.records import ReplicaRecord, Snapshot
from judging.experiment import Recording
from judging.shadow_report import ShadowReport
from judging.standing import Standing
from judging.verdict import Evidence
from nstarx.errors import NStarXError, Unavailable
from nstarx.spec.experiment import OutcomeRecord
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import Record
from nstarx.spec.route import RoutesDocument


class CoordinatorUnavailable(Unavailable):
    """The coordinator is dead, restarting or out of reach."""

    code = "coordinator_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the coordinator does not answer ({reason}); what is served goes on as it is, repeat the call in a moment"
        )


class NotJoined(NStarXError):
    """A gateway speaks to a coordinator that does not know it: the coordinator restarted, or the gateway was silent."""

    status, code = 409, "not_joined"

    def __init__(self, gateway: str) -> None:
        super().__init__(f"gateway '{gateway}' has not joined this coordinator; join again with the snapshot it holds")


def digest(content: Any) -> str:
    """Hex digest of JSON-like content, whatever the order of its keys. Raises TypeError where it isn't JSON-like."""
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)).hexdigest()


class RoutesSeed(Record):
    """The routes in a gateway's configuration file."""

    document: RoutesDocument
    digest: str

    @classmethod
    def of(cls, document: RoutesDocument) -> Self:
        return cls(document=document, digest=digest(document.model_dump(mode="json")))


class Beat(Record):
    """The answer to a replica's sign of life."""

    known: bool
    """False: the replica has to register again."""
    settings: dict[str, Any] = {}
    """Live settings of its version, as `register` gives them."""


class Applied(Record):
    """What became of a change."""

    number: int
    """The snapshot that gateways hold after it."""
    etag: str
    """Names what is stored after it; of a dry run: what would be."""
    changed: bool
    """False when it was so already. A dry run says what would be."""
    warnings: tuple[str, ...] = ()
    """Sentences about what was accepted but will not answer yet."""


class Member(Record):
    """One joined gateway."""

    gateway: str
    age_s: float
    """Since it was last heard of."""


class Coordination(Protocol):
    """The coordinator's verbs.

    Every verb may raise CoordinatorUnavailable, after which a gateway joins again and a replica goes on beating.
    """

    async def join(
        self,
        gateway: str,
        held: Snapshot,
        seed: RoutesSeed | None = None,
        events: tuple[Event, ...] = (),
        state_dir: str | None = None,
    ) -> Snapshot:
        """A gateway says hello with the snapshot it holds, at start and again after any call that failed.

        A coordinator younger than `held` takes it over, and the events with it, so routes outlive its death without
        storage. `seed` is taken unless it was the last one taken: a restarted gateway does not undo live changes, a
        changed file does apply. `state_dir` is where what experiments have seen is kept, and found; a relative one is
        below the user's private folder. The first that is named counts.
        """

    async def watch(self, gateway: str, number: int, timeout_s: float) -> Snapshot | None:
        """The snapshot as soon as its number isn't `number`; None after `timeout_s` seconds (15 at the most).

        Raises NotJoined.
        """

    async def leave_gateway(self, gateway: str) -> None:
        """A gateway says goodbye. After the last one, every seed is taken again."""

    async def report(self, gateway: str, counters: dict[str, Any]) -> None:
        """Hand over cumulative counters; the caller does not change the dictionary afterwards. Raises NotJoined.

        `trials` holds what shadows have shown, of those alone that have shown something new.
        """

    async def reports(self) -> dict[str, dict[str, Any]]:
        """The last counters of every joined gateway that reported."""

    async def members(self) -> tuple[Member, ...]:
        """The joined gateways."""

    async def snapshot(self) -> Snapshot:
        """The current snapshot."""

    async def register(self, record: ReplicaRecord, spec: ModelSpec) -> dict[str, Any]:
        """A replica says that it is ready.

        Returns the live settings of its version, which replace those of `spec`; {} when nobody changed them. Raises
        InvalidConfiguration when `spec` is of another version.
        """

    async def beat(self, replica: str) -> Beat:
        """A replica says that it is alive, about once a second."""

    async def leave(self, replica: str) -> None:
        """A replica says goodbye."""

    async def report_loss(self, replica: str) -> None:
        """A gateway lost its lanes to a replica, which has two seconds to beat before it is dropped."""

    async def routes(self) -> tuple[RoutesDocument, str]:
        """The routes and their ETag."""

    async def apply_routes(
        self, document: RoutesDocument, if_match: str | None = None, dry_run: bool = False
    ) -> Applied:
        """Replace all routes. `dry_run` does everything but publish. Raises Conflict when `if_match` is outdated."""

    async def accuse(
        self, gateway: str, route: str, ref: str, evidence: Evidence, counters: dict[str, Any]
    ) -> Snapshot:
        """A gateway has found a version guilty on a route. The snapshot that shows the decision. Raises NotJoined."""

    async def undo_demotion(self, route: str, ref: str) -> Standing:
        """A person puts a demoted version back; where it stands now. Raises DemotionNotFound."""

    async def purge_caches(self, key: str | None, reason: str) -> Snapshot:
        """Every gateway drops the cached answers that bear a surrogate key, all of them for None.

        `reason` is a part of a sentence, for people. Returns the snapshot that tells the gateways.
        """

    async def shadows(self) -> tuple[tuple[str, ShadowReport], ...]:
        """Of every shadow its route, and what it has shown in all gateways."""

    async def shadow(self, route: str, version: str) -> ShadowReport:
        """What one shadow has shown in all gateways. Raises ShadowNotFound."""

    async def reset_shadow(self, route: str, version: str) -> Applied:
        """Forget what a shadow has shown, and begin anew. Raises ShadowNotFound."""

    async def events(self, after: int, timeout_s: float = 0.0, limit: int = 1000) -> tuple[Event, ...]:
        """Events with a higher number, as soon as there is one; none after `timeout_s` seconds (15 at the most)."""

    async def tell(
        self,
        gateway: str,
        kind: EventKind,
        sentence: str,
        route: str | None = None,
        version: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """A gateway tells of something that it has done by itself."""

    async def experiments(self) -> tuple[ExperimentStatus, ...]:
        """Those that are configured, then those that were."""

    async def experiment(self, name: str) -> ExperimentStatus:
        """One of them. Raises ExperimentNotFound."""

    async def start_experiment(self, name: str) -> ExperimentStatus:
        """A new run, which knows nothing of a former one. Raises ExperimentNotFound, ExperimentConflict, and
        LedgerUnwritable, as do the next three."""

    async def stop_experiment(self, name: str) -> ExperimentStatus:
        """It assigns nobody any more; outcomes may still come. Raises ExperimentNotFound, ExperimentConflict."""

    async def hand_in(self, gateway: str, number: int, exposed: tuple[Exposed, ...]) -> None:
        """A gateway's assignments, each batch with a higher number than the last. When this returns, they outlive the
        coordinator; until then the gateway keeps them, and may hand them in again. Raises NotJoined."""

    async def report_outcomes(self, experiment: str, outcomes: tuple[OutcomeRecord, ...]) -> tuple[Recording, ...]:
        """What became of each, in order. When this returns, they outlive the coordinator; reporting them again changes
        nothing. Raises InvalidOutcome, ExperimentNotFound or ExperimentConflict, and none counts."""

    async def apply_settings(self, ref: str, settings: dict[str, Any]) -> Applied:
        """Merge a patch (RFC 7386: null removes) into one version's settings.

        Raises VersionNotFound when the version has no live replica, InvalidConfiguration when the patch isn't JSON.
        """
