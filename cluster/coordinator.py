"""The meeting place of gateways and replicas, one per cluster. Plain asyncio: whoever hosts it calls `tick`."""

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from cluster import chronicle
from cluster.coordination import (
    Applied,
    Beat,
    Coordination,
    CoordinatorUnavailable,
    Member,
    NotJoined,
    RoutesSeed,
    digest,
)
from cluster.demotions import Change, Demotions
from cluster.events import Event, EventKind, EventLog
from cluster.experiments import ExperimentStatus, Exposed
from cluster.ledger import Ledger, LedgerUnwritable
from cluster.private import private_folder
from cluster.records import PURGES, CachePurge, ReplicaRecord, Snapshot
from cluster.shadows import Shadows, Verdict
from cluster.trials import Told, Trials
from judging.experiment import Recording
from judging.shadow_report import ShadowReport
from judging.standing import Standing
from judging.verdict import Evidence
from nstarx.errors import Conflict, InvalidConfiguration, VersionNotFound
from nstarx.spec.experiment import OutcomeRecord
from nstarx.spec.model import ModelSpec
from nstarx.spec.route import RoutesDocument, RouteSpec, bind

log = logging.getLogger("nstarx.coordinator")


@dataclass(frozen=True)
class Patience:
    """How long the coordinator waits for signs of life, in seconds."""

    expiry_s: float = 10.0
    """A replica that beat is dropped after this."""
    grace_s: float = 10.0
    """A replica known only from an adopted snapshot is dropped after this."""
    suspicion_s: float = 2.0
    """A replica that a gateway lost is dropped after this."""
    silence_s: float = 30.0
    """A gateway is forgotten after this."""


@dataclass
class _Gateway:
    seen: float
    counters: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Replica:
    record: ReplicaRecord
    deadline: float
    """Dropped after this unless it beats first."""


class Coordinator(Coordination):
    """Coordination in memory. Every change makes a new snapshot, swapped in by one assignment."""

    def __init__(
        self,
        patience: Patience = Patience(),
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock` measures patience. `wall` is Unix time, which standings and events carry from life to life."""
        self._patience = patience
        self._clock = clock
        self._wall = wall
        self._demotions = Demotions()
        self._shadows = Shadows()
        self._trials = Trials(lambda entry: self._ledger.append(entry))
        self._ledger = Ledger(self._trials.to_json, self._trials.restore)
        self._events = EventLog(wall())
        self._snapshot = Snapshot(epoch=uuid4().hex)
        self._changed = asyncio.Event()
        self._gateways: dict[str, _Gateway] = {}
        self._replicas: dict[str, _Replica] = {}
        # What people applied in this life outranks what a gateway remembers of a former one.
        self._routes_applied = False
        self._settings_applied: set[str] = set()
        self._adopted: dict[str, int] = {}
        """Former lives, and the number of the latest snapshot that was adopted of each: not every gateway that joins
        remembers the last one."""

    async def join(
        self,
        gateway: str,
        held: Snapshot,
        seed: RoutesSeed | None = None,
        events: tuple[Event, ...] = (),
        state_dir: str | None = None,
    ) -> Snapshot:
        if state_dir:
            self._remember(state_dir)
        if gateway not in self._gateways:
            self._note(EventKind.GATEWAY_JOINED, f"gateway {gateway} has joined", gateway=gateway)
        self._gateways.setdefault(gateway, _Gateway(self._clock())).seen = self._clock()
        if held.epoch != self._snapshot.epoch and held.number > self._adopted.get(held.epoch, self._snapshot.number):
            self._adopt(held, events)
        if seed and seed.digest != self._snapshot.seed:
            self._take_routes(seed.document, seed=seed.digest)
            self._note(EventKind.ROUTES_APPLIED, f"the routes of gateway {gateway}'s configuration are in force")
        return self._snapshot

    async def watch(self, gateway: str, number: int, timeout_s: float) -> Snapshot | None:
        self._hear(gateway)
        if number == self._snapshot.number:
            # A watching gateway may say nothing else, and must not be taken for a silent one.
            await self._next_change(min(timeout_s, self._patience.silence_s / 2))
        return self._snapshot if number != self._snapshot.number else None

    async def leave_gateway(self, gateway: str) -> None:
        if self._gateways.pop(gateway, None):
            self._shadows.left(gateway)
            self._forget(gateway, "has left")
        if not self._gateways and self._snapshot.seed:
            self._publish(seed="")

    async def report(self, gateway: str, counters: dict[str, Any]) -> None:
        if failing := self._listen(gateway, counters):
            self._carry_out(self._demotions.judge(self._wall(), failing), None)

    async def reports(self) -> dict[str, dict[str, Any]]:
        return {name: gateway.counters for name, gateway in self._gateways.items() if gateway.counters}

    async def members(self) -> tuple[Member, ...]:
        now = self._clock()
        return tuple(Member(gateway=name, age_s=now - gateway.seen) for name, gateway in self._gateways.items())

    async def snapshot(self) -> Snapshot:
        return self._snapshot

    async def register(self, record: ReplicaRecord, spec: ModelSpec) -> dict[str, Any]:
        if record.ref != str(spec.ref):
            raise InvalidConfiguration(f"replica '{record.replica}' serves {record.ref}, but its spec is of {spec.ref}")
        if record.replica not in self._replicas:
            sentence = f"replica {record.replica} is ready"
            self._note(EventKind.REPLICA_JOINED, sentence, version=record.ref, details={"replica": record.replica})
        self._replicas[record.replica] = _Replica(record, self._clock() + self._patience.expiry_s)
        self._show_replicas({**self._snapshot.models, record.ref: spec})
        return self._settings_of(record.ref)

    async def beat(self, replica: str) -> Beat:
        alive = self._replicas.get(replica)
        if not alive:
            return Beat(known=False)
        alive.deadline = self._clock() + self._patience.expiry_s
        return Beat(known=True, settings=self._settings_of(alive.record.ref))

    async def leave(self, replica: str) -> None:
        self._drop([replica])

    async def report_loss(self, replica: str) -> None:
        suspect = self._replicas.get(replica)
        if suspect:
            suspect.deadline = min(suspect.deadline, self._clock() + self._patience.suspicion_s)

    async def routes(self) -> tuple[RoutesDocument, str]:
        document = RoutesDocument(routes=self._snapshot.routes, experiments=self._snapshot.experiments)
        return document, _etag(document)

    async def apply_routes(
        self, document: RoutesDocument, if_match: str | None = None, dry_run: bool = False
    ) -> Applied:
        _, current = await self.routes()
        if if_match not in (None, "*", current):
            raise Conflict(str(if_match), current)
        self._trials.check(document.experiments)
        bound = document.bound(self._trials.shown())
        etag, warnings = _etag(document), (*self._unserved(bound), *self._demotions.warnings(bound))
        if not dry_run:
            self._routes_applied = True
            if etag != current:
                self._change_routes(document)
        return Applied(number=self._snapshot.number, etag=etag, changed=etag != current, warnings=warnings)

    async def apply_settings(self, ref: str, settings: dict[str, Any]) -> Applied:
        applied = self._snapshot.settings
        before = applied[ref] if ref in applied else self._spec_of(ref).settings
        after = merge_patch(before, _plain(settings, ref))
        # Compared by digest, because to Python 1 and true are equal.
        changed = digest(after) != digest(before)
        self._settings_applied.add(ref)
        if changed:
            self._publish(settings={**self._snapshot.settings, ref: after})
            self._note(EventKind.SETTINGS_APPLIED, f"settings of {ref} have changed", version=ref, details=after)
        return Applied(number=self._snapshot.number, etag=f'"{digest(after)}"', changed=changed)

    async def accuse(
        self, gateway: str, route: str, ref: str, evidence: Evidence, counters: dict[str, Any]
    ) -> Snapshot:
        self._listen(gateway, counters)
        change = self._demotions.accuse(route, ref, evidence, self._wall())
        if change:
            self._carry_out([change], gateway)
        return self._snapshot

    async def undo_demotion(self, route: str, ref: str) -> Standing:
        now = self._wall()
        change = self._demotions.undo(route, ref, now)
        records = tuple(
            record.model_copy(update={"undone": now})
            if (record.route, record.version, record.undone) == (route, ref, None)
            else record
            for record in self._snapshot.demotions
        )
        self._publish(standings=self._demotions.shown(), demotions=records)
        sentence = f"a person has put {ref} back on route '{route}'"
        self._note(EventKind.DEMOTION_UNDONE, sentence, route=route, version=ref)
        return change.after

    async def purge_caches(self, key: str | None, reason: str) -> Snapshot:
        purge = CachePurge(number=self._snapshot.number + 1, key=key)
        self._publish(purges=(*self._snapshot.purges, purge)[-PURGES:])
        what = f"that bear {key}" if key else "of every route"
        self._note(EventKind.CACHE_PURGED, f"cached answers {what} are dropped: {reason}", details={"key": key})
        return self._snapshot

    async def shadows(self) -> tuple[tuple[str, ShadowReport], ...]:
        return tuple(self._shadows.reports())

    async def shadow(self, route: str, version: str) -> ShadowReport:
        return self._shadows.report(route, version)

    async def reset_shadow(self, route: str, version: str) -> Applied:
        self._shadows.check(route, version)
        resets = self._snapshot.shadow_resets
        of_route = resets.get(route, {})
        self._publish(shadow_resets={**resets, route: {**of_route, version: of_route.get(version, 0) + 1}})
        sentence = f"a person has reset what shadow {version} of route '{route}' has shown"
        self._note(EventKind.SHADOW_RESET, sentence, route=route, version=version)
        return Applied(number=self._snapshot.number, etag=f'"{self._snapshot.number}"', changed=True)

    async def experiments(self) -> tuple[ExperimentStatus, ...]:
        self._await_gateways()
        return tuple(self._trials.statuses(self._wall()))

    async def experiment(self, name: str) -> ExperimentStatus:
        self._await_gateways()
        return self._trials.status(name, self._wall())

    async def start_experiment(self, name: str) -> ExperimentStatus:
        return await self._carry_through(name, self._trials.start)

    async def stop_experiment(self, name: str) -> ExperimentStatus:
        return await self._carry_through(name, self._trials.stop)

    async def _carry_through(self, name: str, change: Callable[[str, float], Told]) -> ExperimentStatus:
        """Change an experiment's life, show it, and keep it."""
        self._await_gateways()
        if self._ledger.failed:
            await self._ledger.commit()
        self._tell_of([change(name, self._wall())])
        await self._ledger.commit()
        return self._trials.status(name, self._wall())

    def _await_gateways(self) -> None:
        """Until the first gateway has joined, a coordinator knows nothing of its former lives' experiments, and must
        not say that there are none. Raises CoordinatorUnavailable."""
        if not self._gateways:
            raise CoordinatorUnavailable("no gateway has joined it yet")

    async def hand_in(self, gateway: str, number: int, exposed: tuple[Exposed, ...]) -> None:
        self._hear(gateway)
        self._trials.hand_in(gateway, number, exposed)
        await self._ledger.commit()

    async def report_outcomes(self, experiment: str, outcomes: tuple[OutcomeRecord, ...]) -> tuple[Recording, ...]:
        self._await_gateways()
        if self._ledger.failed:
            await self._ledger.commit()
        recordings = self._trials.record(experiment, outcomes)
        await self._ledger.commit()
        return tuple(recordings)

    async def events(self, after: int, timeout_s: float = 0.0, limit: int = 1000) -> tuple[Event, ...]:
        return await self._events.wait(after, min(timeout_s, self._patience.silence_s / 2), limit)

    async def tell(
        self,
        gateway: str,
        kind: EventKind,
        sentence: str,
        route: str | None = None,
        version: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self._note(kind, sentence, gateway=gateway, route=route, version=version, details=details or {})

    def tick(self, now: float) -> None:
        """Forget whoever was silent too long, and judge what has been heard. To be called about twice a second."""
        self._drop([name for name, replica in self._replicas.items() if replica.deadline < now])
        oldest = now - self._patience.silence_s
        for name in [name for name, gateway in self._gateways.items() if gateway.seen < oldest]:
            del self._gateways[name]
            self._forget(name, "was silent for too long")
        self._carry_out(self._demotions.judge(self._wall()), None)
        for verdict in self._shadows.judge():
            self._tell_ready(verdict)
        self._tell_of(self._trials.tick(self._wall()))
        self._ledger.keep()

    def _tell_ready(self, ready: Verdict) -> None:
        """Once in a trial, also where a former life of the coordinator has told it."""
        about = {"route": ready.route, "version": ready.version, "details": {"trial": ready.trial}}
        if not any(_is_about(event, EventKind.SHADOW_READY, about) for event in self._events.latest()):
            sentence = f"shadow {ready.version} of route '{ready.route}': {ready.report.sentence}"
            self._note(EventKind.SHADOW_READY, sentence, **about)

    def close(self) -> None:
        """Let go of the files, for another coordinator to take them."""
        self._ledger.close()

    def _remember(self, state_dir: str) -> None:
        """Keep what experiments see in this folder, and take over what is there. Where that fails, gateways join all
        the same: whoever changes an experiment is told."""
        try:
            self._ledger.settle(lambda: Path(state_dir) if state_dir.startswith("/") else private_folder() / state_dir)
        except LedgerUnwritable as error:
            log.error("%s", error, extra={"action": "state_unreadable"})

    def _tell_of(self, told: Iterable[Told]) -> None:
        """What has become of experiments: told, and shown to gateways where it concerns them."""
        for kind, sentence, details in told:
            self._note(kind, sentence, details=details)
        if self._trials.shown() != self._snapshot.trials:
            self._publish(trials=self._trials.shown())

    def _take_routes(self, document: RoutesDocument, **parts: Any) -> None:
        """Routes and experiments that are in force from now on."""
        told = self._trials.follow(document.experiments, document.routes, self._wall())
        self._publish(routes=document.routes, experiments=document.experiments, trials=self._trials.shown(), **parts)
        self._tell_of(told)

    def _forget(self, gateway: str, why: str) -> None:
        self._demotions.left(gateway)
        self._note(EventKind.GATEWAY_LEFT, f"gateway {gateway} {why}", gateway=gateway)

    def _carry_out(self, changes: list[Change], gateway: str | None) -> None:
        """The one door for what verdicts change: standing, record and event."""
        now = self._wall()
        records = list(self._snapshot.demotions)
        for change in changes:
            if record := chronicle.record(change, records[-1].id + 1 if records else 1, now, gateway):
                records.append(record)
            if kind := chronicle.kind(change):
                about = {"route": change.route.name, "version": change.version, "gateway": gateway}
                details = change.after.model_dump(mode="json")
                self._note(kind, chronicle.sentence(change), **about, details=details)
        kept = tuple(records[-chronicle.KEPT :])
        if kept != self._snapshot.demotions or any(change.shows for change in changes):
            self._publish(standings=self._demotions.shown(), demotions=kept)

    def _change_routes(self, document: RoutesDocument) -> None:
        before = {route.name: route for route in self._snapshot.routes}
        self._take_routes(document)
        self._note(EventKind.ROUTES_APPLIED, f"routes of snapshot {self._snapshot.number} are in force")
        for route in self._snapshot.routes:
            for kind, sentence, details in chronicle.differences(before.get(route.name), route):
                self._note(kind, sentence, route=route.name, details=details)

    def _note(self, kind: EventKind, sentence: str, **about: Any) -> None:
        self._events.add(kind, self._wall(), sentence, **about)

    def _hear(self, gateway: str) -> _Gateway:
        if gateway not in self._gateways:
            raise NotJoined(gateway)
        self._gateways[gateway].seen = self._clock()
        return self._gateways[gateway]

    def _listen(self, gateway: str, counters: dict[str, Any]) -> list[tuple[str, str]]:
        """Take a report. Routes and versions that have failed since they were judged."""
        # What shadows have shown is large, and not for everybody who asks for counters.
        self._hear(gateway).counters = {name: part for name, part in counters.items() if name != "trials"}
        self._shadows.heard(gateway, counters.get("trials", ()))
        return self._demotions.heard(gateway, counters.get("tallies", ()), self._wall())

    async def _next_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _publish(self, **parts: Any) -> None:
        if parts.keys() & {"routes", "experiments", "trials"}:
            held = self._snapshot
            routes, experiments = parts.get("routes", held.routes), parts.get("experiments", held.experiments)
            parts["routes"] = bind(routes, experiments, parts.get("trials", held.trials))
            self._demotions.follow(parts["routes"], self._wall())
            parts["standings"] = self._demotions.shown()
        if "routes" in parts or "shadow_resets" in parts:
            routes = parts.get("routes", self._snapshot.routes)
            self._shadows.follow(routes, parts.get("shadow_resets", self._snapshot.shadow_resets))
        new = self._snapshot.model_copy(update=parts)
        self._snapshot = new.model_copy(update={"number": new.number + 1})
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _adopt(self, held: Snapshot, events: tuple[Event, ...]) -> None:
        """Take over what a gateway remembers of the coordinator's former life."""
        own = self._snapshot
        self._adopted[held.epoch] = held.number
        self._events.adopt(events)
        self._note(EventKind.COORDINATOR_RESTARTED, f"the coordinator goes on from snapshot {held.number}")
        self._demotions.adopt(held.standings)
        self._trials.adopt(held.trials)
        for record in held.replicas:
            self._replicas.setdefault(record.replica, _Replica(record, self._clock() + self._patience.grace_s))
        applied = {ref: settings for ref, settings in own.settings.items() if ref in self._settings_applied}
        applied_to = own if self._routes_applied else held
        self._take_routes(
            RoutesDocument(routes=applied_to.routes, experiments=applied_to.experiments),
            number=max(held.number, own.number),
            seed=held.seed,
            demotions=chronicle.merged(held.demotions, own.demotions),
            purges=(*held.purges, *self._purges_again(max(held.number, own.number) + 1))[-PURGES:],
            shadow_resets=held.shadow_resets,
            settings={**own.settings, **held.settings, **applied},
            **self._serving({**held.models, **own.models}),
        )

    def _purges_again(self, number: int) -> Iterable[CachePurge]:
        """Those of this life, which gateways with a higher number than its own have not obeyed."""
        return (purge.model_copy(update={"number": number}) for purge in self._snapshot.purges)

    def _drop(self, replicas: Iterable[str]) -> None:
        for replica in replicas:
            if gone := self._replicas.pop(replica, None):
                about = {"version": gone.record.ref, "details": {"replica": replica}}
                self._note(EventKind.REPLICA_LEFT, f"replica {replica} is gone", **about)
        self._show_replicas(self._snapshot.models)

    def _show_replicas(self, specs: dict[str, ModelSpec]) -> None:
        parts = self._serving(specs)
        if any(getattr(self._snapshot, part) != value for part, value in parts.items()):
            self._publish(**parts)

    def _serving(self, specs: dict[str, ModelSpec]) -> dict[str, Any]:
        """The parts of a snapshot that show the live replicas, with the specs of their versions alone."""
        records = tuple(replica.record for replica in self._replicas.values())
        refs = {record.ref for record in records}
        return {"replicas": records, "models": {ref: spec for ref, spec in specs.items() if ref in refs}}

    def _settings_of(self, ref: str) -> dict[str, Any]:
        return copy.deepcopy(self._snapshot.settings.get(ref, {}))

    def _spec_of(self, ref: str) -> ModelSpec:
        if ref in self._snapshot.models:
            return self._snapshot.models[ref]
        name, _, version = ref.partition("@")
        raise VersionNotFound(name, version, (s.version for s in self._snapshot.models.values() if s.name == name))

    def _unserved(self, routes: Iterable[RouteSpec]) -> tuple[str, ...]:
        """Sentences about versions without a replica: no error, because a rollout may send its routes ahead."""
        named = [
            f"route '{route.model}' names {ref}, which has no live replica; it answers once one registers"
            for route in routes
            for ref in route.versions
            if ref not in self._snapshot.models
        ]
        copied = [
            f"route '{route.model}' shadows {shadow.version}, which has no live replica yet"
            for route in routes
            for shadow in route.shadows
            if shadow.version not in self._snapshot.models
        ]
        return (*named, *copied)


def merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """`target` with a JSON merge patch applied (RFC 7386); neither is changed."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            before = merged.get(key)
            merged[key] = merge_patch(before if isinstance(before, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _is_about(event: Event, kind: EventKind, about: Mapping[str, Any]) -> bool:
    return event.kind is kind and all(getattr(event, name) == value for name, value in about.items())


def _etag(document: RoutesDocument) -> str:
    return f'"{RoutesSeed.of(document).digest}"'


def _plain(settings: dict[str, Any], ref: str) -> dict[str, Any]:
    """A copy that shares nothing with the caller's. Raises InvalidConfiguration when it isn't JSON."""
    try:
        copied: dict[str, Any] = orjson.loads(orjson.dumps(settings))
    except TypeError as error:
        raise InvalidConfiguration(f"settings of {ref}: {error}; send a JSON object") from None
    return copied
