"""Coordination through a detached Ray actor, which Ray restarts when it dies and gateways then fill again."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.coordination import Applied, Beat, Coordination, CoordinatorUnavailable, Member, RoutesSeed
from cluster.coordinator import Coordinator
from cluster.events import Event, EventKind
from cluster.experiments import ExperimentStatus, Exposed
from cluster.records import ReplicaRecord, Snapshot
from judging.experiment import Recording
from judging.shadow_report import ShadowReport
from judging.standing import Standing
from judging.verdict import Evidence
from nstarx.errors import NStarXError
from nstarx.spec.experiment import OutcomeRecord
from nstarx.spec.model import ModelSpec
from nstarx.spec.route import RoutesDocument

log = logging.getLogger("nstarx.coordinator")

P = ParamSpec("P")
A = TypeVar("A")
Handle: TypeAlias = Any
"""An actor's handle, to whose methods Ray's own types are blind."""

NAME = "nstarx-coordinator"
NAMESPACE = "nstarx"
TICK_S = 0.5
MAX_CONCURRENT_CALLS = 10_000
"""Every gateway keeps one call open, its watch."""


class Refusal(NamedTuple):
    """An error of ours as plain data: Ray can't unpickle errors whose constructor takes the parts of a sentence."""

    kind: type[NStarXError]
    arguments: tuple[Any, ...]
    state: dict[str, Any]

    @classmethod
    def of(cls, error: NStarXError) -> "Refusal":
        return cls(type(error), error.args, dict(vars(error)))

    def error(self) -> NStarXError:
        error = self.kind.__new__(self.kind, *self.arguments)
        vars(error).update(self.state)
        return error


class CoordinatorActor:
    """Hosts the coordinator in a process of its own."""

    def __init__(self) -> None:
        self._coordinator = Coordinator()
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def call(self, verb: str, *arguments: Any, **named: Any) -> Any:
        """The answer of one of the verbs of `Coordination`, or a Refusal."""
        try:
            return await getattr(self._coordinator, verb)(*arguments, **named)
        except NStarXError as error:
            return Refusal.of(error)

    async def pid(self) -> int:
        return os.getpid()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._coordinator.tick(time.monotonic())
            except Exception:
                log.exception("a tick failed", extra={"action": "tick_failed"})


def find_or_create(name: str = NAME) -> Handle:
    """The cluster's coordinator. Blocks while Ray looks it up."""
    return (
        ray.remote(CoordinatorActor)
        .options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=MAX_CONCURRENT_CALLS,
        )
        .remote()
    )


class RayCoordination(Coordination):
    """The client of the coordinator's actor; Ray must be initialized. It outlives the actor's death and restart."""

    def __init__(self, name: str = NAME, answer_s: float = 30.0) -> None:
        """`answer_s`: after this the coordinator counts as unavailable; longer than the longest watch."""
        self._name = name
        self._answer_s = answer_s
        self._actor: Handle | None = None

    async def join(
        self,
        gateway: str,
        held: Snapshot,
        seed: RoutesSeed | None = None,
        events: tuple[Event, ...] = (),
        state_dir: str | None = None,
    ) -> Snapshot:
        return await self._call(Coordinator.join, gateway, held, seed, events, state_dir)

    async def watch(self, gateway: str, number: int, timeout_s: float) -> Snapshot | None:
        return await self._call(Coordinator.watch, gateway, number, timeout_s)

    async def leave_gateway(self, gateway: str) -> None:
        await self._call(Coordinator.leave_gateway, gateway)

    async def report(self, gateway: str, counters: dict[str, Any]) -> None:
        await self._call(Coordinator.report, gateway, counters)

    async def reports(self) -> dict[str, dict[str, Any]]:
        return await self._call(Coordinator.reports)

    async def members(self) -> tuple[Member, ...]:
        return await self._call(Coordinator.members)

    async def snapshot(self) -> Snapshot:
        return await self._call(Coordinator.snapshot)

    async def register(self, record: ReplicaRecord, spec: ModelSpec) -> dict[str, Any]:
        return await self._call(Coordinator.register, record, spec)

    async def beat(self, replica: str) -> Beat:
        return await self._call(Coordinator.beat, replica)

    async def leave(self, replica: str) -> None:
        await self._call(Coordinator.leave, replica)

    async def report_loss(self, replica: str) -> None:
        await self._call(Coordinator.report_loss, replica)

    async def routes(self) -> tuple[RoutesDocument, str]:
        return await self._call(Coordinator.routes)

    async def apply_routes(
        self, document: RoutesDocument, if_match: str | None = None, dry_run: bool = False
    ) -> Applied:
        return await self._call(Coordinator.apply_routes, document, if_match, dry_run)

    async def accuse(
        self, gateway: str, route: str, ref: str, evidence: Evidence, counters: dict[str, Any]
    ) -> Snapshot:
        return await self._call(Coordinator.accuse, gateway, route, ref, evidence, counters)

    async def undo_demotion(self, route: str, ref: str) -> Standing:
        return await self._call(Coordinator.undo_demotion, route, ref)

    async def purge_caches(self, key: str | None, reason: str) -> Snapshot:
        return await self._call(Coordinator.purge_caches, key, reason)

    async def shadows(self) -> tuple[tuple[str, ShadowReport], ...]:
        return await self._call(Coordinator.shadows)

    async def shadow(self, route: str, version: str) -> ShadowReport:
        return await self._call(Coordinator.shadow, route, version)

    async def reset_shadow(self, route: str, version: str) -> Applied:
        return await self._call(Coordinator.reset_shadow, route, version)

    async def events(self, after: int, timeout_s: float = 0.0, limit: int = 1000) -> tuple[Event, ...]:
        return await self._call(Coordinator.events, after, timeout_s, limit)

    async def tell(
        self,
        gateway: str,
        kind: EventKind,
        sentence: str,
        route: str | None = None,
        version: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        await self._call(Coordinator.tell, gateway, kind, sentence, route, version, details)

    async def experiments(self) -> tuple[ExperimentStatus, ...]:
        return await self._call(Coordinator.experiments)

    async def experiment(self, name: str) -> ExperimentStatus:
        return await self._call(Coordinator.experiment, name)

    async def start_experiment(self, name: str) -> ExperimentStatus:
        return await self._call(Coordinator.start_experiment, name)

    async def stop_experiment(self, name: str) -> ExperimentStatus:
        return await self._call(Coordinator.stop_experiment, name)

    async def hand_in(self, gateway: str, number: int, exposed: tuple[Exposed, ...]) -> None:
        await self._call(Coordinator.hand_in, gateway, number, exposed)

    async def report_outcomes(self, experiment: str, outcomes: tuple[OutcomeRecord, ...]) -> tuple[Recording, ...]:
        return await self._call(Coordinator.report_outcomes, experiment, outcomes)

    async def apply_settings(self, ref: str, settings: dict[str, Any]) -> Applied:
        return await self._call(Coordinator.apply_settings, ref, settings)

    async def _call(
        self, verb: Callable[Concatenate[Coordinator, P], Awaitable[A]], *arguments: P.args, **named: P.kwargs
    ) -> A:
        answer: A | Refusal
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await (await self._find()).call.remote(verb.__name__, *arguments, **named)
        except RayTaskError:
            raise  # A defect of the coordinator: its traceback says more than a sentence of ours.
        except (RayError, TimeoutError) as error:
            self._actor = None
            raise CoordinatorUnavailable(type(error).__name__) from error
        if isinstance(answer, Refusal):
            raise answer.error()
        return answer

    async def pid(self) -> int:
        """The process that hosts the coordinator."""
        pid: int = await (await self._find()).pid.remote()
        return pid

    async def _find(self) -> Handle:
        if self._actor is None:
            self._actor = await asyncio.to_thread(find_or_create, self._name)
        return self._actor
