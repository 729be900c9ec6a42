"""A gateway: the parts of one process put together, and the life they lead."""

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from itertools import count
from random import Random
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette

from cluster.coordination import Coordination, RoutesSeed
from cluster.demotions import Standings
from cluster.events import EventKind, EventLog
from cluster.records import Snapshot
from cluster.trace_export import TraceExporter
from cluster.tracing import Tracer
from judging.experiment import Recording
from judging.standing import Standing, starts_anew
from judging.verdict import Demote
from judging.watched import refusal
from nstarx.errors import LaneError, NStarXError
from nstarx.spec.experiment import OutcomeRecord
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.route import RoutesDocument, RouteSpec
from router.deadlines import expire_overdue
from router.ejections import Ejections, ejected
from router.exposures import Exposures
from router.heads import Heads
from router.identity import Identity
from router.keeper import Keeper
from router.lanes import Lane
from router.pressure import INTERVAL_S as PRESSURE_S
from router.pressure import at_work
from router.protocol import InferenceProtocol
from router.shadowing import Shadowing
from router.stale import Words, stale
from router.table import Addressed, Compiler, Table, Target
from router.tracing import Tracing

log = logging.getLogger("nstarx.gateway")

WATCH_S = 10.0
"""One long poll for the next snapshot."""
ACCUSE_S = 1.0
"""Between two accusations of one version, when the first has not taken it out of traffic."""
REPORT_SOON_S = 0.02
"""After a failure, so that the others hear of it soon."""
REPORT_SHARE = 0.02
"""Part of its time that a gateway of many routes spends on making such reports, at the most."""
EXHAUSTED_S = 60.0
"""Between two events about one route's budget for rescues."""
HAND_IN_S = 1.0
"""Between two batches of assignments for the coordinator."""
BLOWN = "This gateway has found it guilty; the coordinator has yet to decide."
REJOIN_S = 0.2
"""Before the coordinator is called again after it failed."""
PREPARE_S = 5.0
"""How long a gateway that starts waits for its first snapshot and lanes before it listens all the same."""
LEAVE_S = 2.0
"""How long the coordinator may take to say goodbye."""
EXPORT_S = 2.0
"""How long the last spans may take on their way out."""
STATS_S = 2.0
"""How long a replica may take to tell its counters."""
BACKLOG = 2048


class Gateway:
    """Holds the newest snapshot, lanes to its replicas, and two listeners. Lives on one event loop."""

    def __init__(
        self, id: str, node: str, spec: GatewaySpec, coordination: Coordination, routes: RoutesDocument
    ) -> None:
        self.id = id
        self.node = node
        self.spec = spec
        self.limits = spec.limits
        self.identity = Identity(spec.identity) if spec.identity else None
        self.coordination = coordination
        self.refused: dict[int, int] = {}
        """Requests refused before a version was chosen, by HTTP status."""
        self.draining = False
        self.joined = False
        self.shadowing = Shadowing()
        self.exposures = Exposures()
        self.outcomes: dict[str, dict[str, int]] = {}
        """Experiment to what became of the outcomes reported here, to their number."""
        self._tracer = Tracer(spec.tracing, Random()) if spec.tracing else None
        self._exporter = TraceExporter(self._tracer, spec.tracing, id) if self._tracer and spec.tracing else None
        self.ejections = Ejections(lambda kind, sentence, ref, details: self.tell(kind, sentence, None, ref, details))
        self.compiler = Compiler(
            self._condemn,
            self._report_soon,
            self.shadowing,
            self._exhausted,
            self.exposures,
            Tracing(self._tracer) if self._tracer else None,
            self.ejections.decided,
        )
        self.table = Table(Snapshot(), {})
        self.targets: dict[bytes, Target | Addressed] = {}
        self.heads = Heads()
        self.started = time.time()
        self.beat_at = time.monotonic()
        """When the event loop last showed that it lives."""
        self.date = _date_line()
        """A line of every answer's head, renewed once a second (RFC 9110, 6.6.1)."""
        self.blown: set[tuple[str, str]] = set()
        """Routes and versions that this gateway has found guilty, and that the coordinator has yet to decide about."""
        self.events = EventLog(0.0)
        """The latest events of the cluster."""
        self._handing_in = asyncio.Lock()
        self._soon: asyncio.TimerHandle | None = None
        """A report that is due before the next second."""
        self._soon_s = REPORT_SOON_S
        self._accused: dict[tuple[str, str], float] = {}
        self._exhausted_at: dict[str, float] = {}
        self._request_ids = count(1)
        self._id_prefix = secrets.token_hex(4).encode()
        self._seed = RoutesSeed.of(routes) if routes.routes else None
        self._keepers: dict[str, Keeper] = {}
        self._leaving: list[Keeper] = []
        """Of replicas that have left, and have yet to answer what they were sent."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[tuple[uvicorn.Server, asyncio.Task[None]]] = []

    # Snapshots

    def apply(self, snapshot: Snapshot) -> None:
        """Hold a new snapshot: open lanes to what came, swap the table by one assignment, let go of what left."""
        replicas = {record.replica: record for record in snapshot.replicas}
        for id, record in replicas.items():
            if id not in self._keepers:
                limit = snapshot.models[record.ref].limits.max_queue_size
                backend = self.compiler.backend(record.ref)
                self._keepers[id] = Keeper(record, limit, backend, self.node, self._report_loss)
        before = self.table.snapshot
        self._compile(snapshot)
        self._purge(stale(before, snapshot))
        self._reset_fuses(before.standings, snapshot.standings)
        gone = [self._keepers.pop(id) for id in self._keepers.keys() - replicas.keys()]
        for keeper in gone:
            keeper.release()
        self._leaving = [keeper for keeper in (*self._leaving, *gone) if keeper.lane and keeper.lane.waiting]
        log.info("snapshot %d", snapshot.number, extra={"action": "snapshot_applied"})

    def hold(self, snapshot: Snapshot) -> None:
        """Hold a snapshot that came as an answer, unless a newer one is held."""
        self.apply(snapshot if snapshot.number >= self.table.snapshot.number else self.table.snapshot)

    def _purge(self, words: Words) -> None:
        """Drop answers that are not to be given any more, and let those who wait for it hear of it."""
        for word in words:
            self.compiler.purge_caches(word)
        if words and self.compiler.caches:
            self._report_soon()

    def _compile(self, snapshot: Snapshot) -> None:
        self.table = self.compiler.compile(snapshot, self.blown)
        self.targets = self.table.targets
        self.heads.clear()

    async def _follow(self) -> None:
        """Stay joined to the coordinator, and take each snapshot as it comes."""
        while True:
            try:
                held = self.table.snapshot
                self.apply(await self._join(held))
                self.shadowing.forget_told()
                self.joined = True
                while True:
                    snapshot = await self.coordination.watch(self.id, self.table.snapshot.number, WATCH_S)
                    if snapshot is not None:
                        self.apply(snapshot)
            except NStarXError as error:
                log.warning("%s", error, extra={"action": "coordinator_lost"})
            except Exception:
                log.exception("a snapshot could not be taken", extra={"action": "snapshot_failed"})
            await asyncio.sleep(REJOIN_S)

    async def _join(self, held: Snapshot) -> Snapshot:
        # The administration port tells clusters of one machine apart.
        state_dir = self.spec.state_dir or f"state-{self.spec.admin_port}"
        return await self.coordination.join(self.id, held, self._seed, self.events.latest(), state_dir)

    async def _report_loss(self, replica: str) -> None:
        with contextlib.suppress(NStarXError):
            await self.coordination.report_loss(replica)

    async def _leave(self) -> None:
        """Say goodbye, if the coordinator is there to hear it."""
        with contextlib.suppress(NStarXError, TimeoutError):
            await asyncio.wait_for(self._hand_in(), LEAVE_S)
            await asyncio.wait_for(self._report_all(), LEAVE_S)
            await asyncio.wait_for(self.coordination.leave_gateway(self.id), LEAVE_S)

    # Experiments

    async def report_outcomes(self, experiment: str, outcomes: tuple[OutcomeRecord, ...]) -> tuple[Recording, ...]:
        """What became of each outcome. Raises what `Coordination.report_outcomes` does."""
        recordings = await self.coordination.report_outcomes(experiment, outcomes)
        counts = self.outcomes.setdefault(experiment, {})
        for recording in recordings:
            counts[recording.value] = counts.get(recording.value, 0) + 1
        return recordings

    async def _hand_in(self) -> None:
        """Give the coordinator the assignments made here; what it does not confirm is handed in again."""
        async with self._handing_in:
            with contextlib.suppress(NStarXError):
                while batch := self.exposures.oldest():
                    await self.coordination.hand_in(self.id, batch.number, batch.exposed)
                    self.exposures.acknowledged(batch)

    # Demotion

    def _condemn(self, route: str, ref: str, verdict: Demote) -> None:
        """A version is out of this gateway's traffic at once; the coordinator decides for all, and for how long."""
        now = time.monotonic()
        if (route, ref) in self.blown or now - self._accused.get((route, ref), -ACCUSE_S) < ACCUSE_S:
            return
        self._accused[route, ref] = now
        spec = next((spec for spec in self.table.snapshot.routes if spec.name == route), None)
        if spec is not None and spec.demotion and spec.demotion.enforce and not self._spared(spec, ref):
            self.blown.add((route, ref))
            self._compile(self.table.snapshot)
            self.compiler.purge_caches(f"version:{ref}")
        log.warning("%s", verdict.sentence, extra={"action": "version_condemned"})
        self._spawn(self._accuse(route, ref, verdict))

    def _report_soon(self) -> None:
        """A version has failed: the coordinator hears of it before the second is over."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(self._soon_s, self._report_now)

    def _report_now(self) -> None:
        begun = time.perf_counter()
        reading = self.reading()
        self._soon_s = max(REPORT_SOON_S, (time.perf_counter() - begun) / REPORT_SHARE)
        self._soon = None
        self._spawn(self._report(reading))

    def _spared(self, route: RouteSpec, ref: str) -> bool:
        standings = self.table.snapshot.standings.get(route.name, {})
        return refusal(route, ref, standings) is not None

    async def _accuse(self, route: str, ref: str, verdict: Demote) -> None:
        """Until the coordinator has heard it: what it decides comes with a snapshot."""
        snapshot = None
        while snapshot is None:
            try:
                snapshot = await self.coordination.accuse(self.id, route, ref, verdict.evidence, self.reading())
            except NStarXError as error:
                log.warning("%s", error, extra={"action": "accusation_failed"})
                await asyncio.sleep(REJOIN_S)
            except Exception:
                # Whatever the reason, the version stays out of this gateway's traffic until somebody has decided.
                log.exception("an accusation could not be heard", extra={"action": "accusation_failed"})
                await asyncio.sleep(ACCUSE_S)
        self.blown.discard((route, ref))
        self.hold(snapshot)

    def _exhausted(self, route: str) -> None:
        """A route may rescue no more requests for now. Told once a minute at the most."""
        now = time.monotonic()
        if now - self._exhausted_at.get(route, -EXHAUSTED_S) < EXHAUSTED_S:
            return
        self._exhausted_at[route] = now
        spec, budget = self.compiler.rescues[route]
        sentence = (
            f"route '{route}' has spent its budget for rescues in gateway {self.id}: {spec.budget_percent:g} % of its "
            f"requests and {spec.burst} more; failures reach clients until it refills"
        )
        details = {"rescues": budget.taken, "refused": budget.overflow}
        self.tell(EventKind.RESCUES_EXHAUSTED, sentence, route, details=details)

    def standings(self) -> dict[str, dict[str, Standing]]:
        """Where versions stand for this gateway: by the snapshot, but for those that it has let go of by itself."""
        found = {route: dict(versions) for route, versions in self.table.snapshot.standings.items()}
        for route, ref in self.blown:
            found.setdefault(route, {})[ref] = Standing(state="demoted", reason=BLOWN)
        return found

    def _reset_fuses(self, before: Standings, after: Standings) -> None:
        """Versions that come back to traffic are judged by what they do from now on."""
        for route, versions in after.items():
            for ref, standing in versions.items():
                fuse = self.compiler.fuses.get((route, ref))
                if fuse and starts_anew(before.get(route, {}).get(ref, Standing()), standing):
                    fuse.reset(time.monotonic())

    async def _follow_events(self) -> None:
        """Keep the latest events, for whoever asks this gateway and for the coordinator's next life."""
        while True:
            try:
                self.events.extend(await self.coordination.events(self.last_event, WATCH_S))
            except NStarXError:
                await asyncio.sleep(REJOIN_S)
            except Exception:
                log.exception("events could not be followed", extra={"action": "events_failed"})
                await asyncio.sleep(ACCUSE_S)

    def tell(
        self,
        kind: EventKind,
        sentence: str,
        route: str | None = None,
        version: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Let the cluster know what this gateway has done by itself, if the coordinator is there to hear it."""
        log.warning("%s", sentence, extra={"action": kind.name.lower()})
        self._spawn(self._told(self.coordination.tell(self.id, kind, sentence, route, version, details)))

    async def _told(self, telling: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(NStarXError):
            await telling

    # Counters

    @property
    def last_event(self) -> int:
        """Number of the newest event known here; 0 before the first."""
        latest = self.events.latest(1)
        return latest[0].number if latest else 0

    def new_request_id(self) -> bytes:
        """An id for a request whose client gave it none."""
        return b"%b-%x" % (self._id_prefix, next(self._request_ids))

    def refuse(self, error: NStarXError) -> None:
        """Count a request that is refused before a version is chosen."""
        self.refused[error.status] = self.refused.get(error.status, 0) + 1

    def reading(self) -> dict[str, Any]:
        """What this gateway has counted since its start, for the wire."""
        return {
            "node": self.node,
            "snapshot": self.table.snapshot.number,
            "started": self.started,
            "tallies": [tally.reading() for tally in self.compiler.tallies.values() if tally.started],
            "refused": dict(self.refused),
            "traces": self._exporter.reading() if self._exporter else {},
            "caches": {route: cache.reading() for route, cache in self.compiler.caches.items()},
            "shadows": self.shadowing.counts(),
            "rescues": {route: budget.overflow for route, (_, budget) in self.compiler.rescues.items()},
            "rules": {route: dict(counts) for route, counts in self.compiler.decisions.items()},
            "experiments": self._experiments(),
            "ejections": self.ejections.reading(),
            "ejected": ejected(self.compiler.pools(), time.time() - time.monotonic()),
            **self.compiler.restraints.reading(),
        }

    def _experiments(self) -> dict[str, Any]:
        """What has been counted of experiments: requests by arm, outcomes by what became of them."""
        exposures = self.exposures
        return {
            "requests": {name: dict(arms) for name, arms in exposures.requests.items()},
            "dropped": exposures.dropped,
            "outcomes": {name: dict(counts) for name, counts in self.outcomes.items()},
        }

    async def readings(self) -> dict[str, dict[str, Any]]:
        """Every gateway's counters, at most a second old; only this one's while the coordinator is away."""
        others: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(NStarXError):
            others = await self.coordination.reports()
        return {**others, self.id: self.reading()}

    async def counters(self, ref: str | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
        """What replicas have counted, asked over lanes: replica to (version, counters). Silent ones are left out."""
        lanes = [lane for lane in self.lanes() if ref in (None, lane.record.ref)]
        answers = await asyncio.gather(*map(_ask, lanes))
        return {lane.record.replica: (lane.record.ref, c) for lane, c in zip(lanes, answers, strict=True) if c}

    async def _report(self, reading: dict[str, Any]) -> None:
        with contextlib.suppress(NStarXError):
            await self.coordination.report(self.id, reading)

    async def _report_all(self) -> None:
        """Also what shadows have shown, which is too much for every failure's report."""
        news = self.shadowing.news()
        with contextlib.suppress(NStarXError):
            await self.coordination.report(self.id, {**self.reading(), "trials": [trial for _, _, trial in news]})
            self.shadowing.told(news)

    # Life

    def lanes(self) -> list[Lane]:
        """Every lane that takes requests."""
        return [lane for backend in self.compiler.backends.values() for lane in backend.lanes]

    async def start(self, public: Starlette, admin: Starlette) -> None:
        """Follow the coordinator, then listen for clients. Raises OSError when the port is taken.

        Other gateways may share the port, so clients come at once: they must find lanes to what is served.
        """
        public.state.gateway = admin.state.gateway = self
        if self._exporter:
            self._exporter.start()
        self._spawn(self._follow())
        self._spawn(self._follow_events())
        await self._prepared()
        listener = _listen(self.spec.host, self.spec.port, shared=True)
        server = await self._serve(public, listener, http=InferenceProtocol)
        self._every(1.0, lambda: self._sweep(server))
        self._every(0.02, lambda: self._expire(time.perf_counter_ns()))
        self._every(PRESSURE_S, lambda: self.shadowing.pressure.look(time.perf_counter_ns(), at_work()))
        self._spawn(self._repeat_report())
        self._spawn(self._repeat_hand_in())
        self._spawn(self._administrate(admin))

    async def _prepared(self) -> None:
        """Until the first snapshot's lanes are open; what can't be reached doesn't hold the rest up for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PREPARE_S):
                while not self.joined or not all(keeper.lane for keeper in self._keepers.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Drain: no new connections, every answer still given and the last on its connection; then close."""
        self.draining = True
        self.heads.clear()
        for server, _ in self._servers:
            for listener in server.servers:
                listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.drain_s):
                for server, _ in self._servers[:1]:
                    while server.server_state.connections:  # noqa: ASYNC110 - uvicorn tells nobody
                        await asyncio.sleep(0.02)
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers), return_exceptions=True)
        for task in tuple(self._tasks):
            task.cancel()
        for keeper in self._keepers.values():
            keeper.release()
        if self._exporter:
            await asyncio.to_thread(self._exporter.close, EXPORT_S)
        await self._leave()

    def all_lanes(self) -> list[Lane]:
        """Every lane, draining ones included."""
        return [keeper.lane for keeper in (*self._keepers.values(), *self._leaving) if keeper.lane]

    def _expire(self, now: int) -> None:
        """End all waiting that takes too long: for replicas, for the answers of others, and to be let in."""
        expire_overdue(self.all_lanes(), now)
        self.compiler.sweep_caches(now)
        self.compiler.restraints.open_gates(now)
        self.shadowing.sweep(now)

    def _sweep(self, server: uvicorn.Server) -> None:
        """Once a second: end connections that take too long, and show that the loop lives."""
        self.beat_at = now = time.monotonic()
        self.date = _date_line()
        for connection in list(server.server_state.connections):
            if isinstance(connection, InferenceProtocol):
                connection.sweep(now)
        for pool in self.compiler.pools():
            pool.sweep(now)
        self.compiler.restraints.learn(now)

    async def _administrate(self, admin: Starlette) -> None:
        """Serve administration, when no other gateway of this node does, or as soon as that one is gone."""
        while True:
            with contextlib.suppress(OSError):
                listener = _listen(self.spec.admin_host, self.spec.admin_port, shared=False)
                await self._serve(admin, listener)
                return
            await asyncio.sleep(1.0)

    async def _serve(self, app: Starlette, listener: socket.socket, **options: Any) -> uvicorn.Server:
        config = uvicorn.Config(
            app, loop="none", lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
            date_header=True, timeout_graceful_shutdown=2, **{"http": "httptools", **options},
        )  # fmt: skip
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]))
        self._servers.append((server, task))
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)
        if task.done():
            task.result()
        return server

    def _spawn(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        self._spawn(_repeat(seconds, action))

    async def _repeat_report(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._report_all()
            await self._share_limits()

    async def _share_limits(self) -> None:
        """Each gateway grants its part of the rate limits; while nobody can be asked, the part that it had."""
        if self.compiler.restraints.limitings:
            with contextlib.suppress(NStarXError):
                self.compiler.restraints.share_among(max(len(await self.coordination.members()), 1))

    async def _repeat_hand_in(self) -> None:
        while True:
            await asyncio.sleep(HAND_IN_S)
            try:
                await self._hand_in()
            except Exception:
                log.exception("assignments could not be handed in", extra={"action": "hand_in_failed"})


def _date_line() -> bytes:
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()


async def _repeat(seconds: float, action: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            action()
        except Exception:
            log.exception("housekeeping failed", extra={"action": "housekeeping_failed"})


async def _ask(lane: Lane) -> dict[str, Any] | None:
    try:
        return dict(orjson.loads(await asyncio.wait_for(lane.ask(), STATS_S)))
    except (LaneError, TimeoutError):
        return None


def _listen(host: str, port: int, shared: bool) -> socket.socket:
    """A listening socket; a shared one lets every gateway of the node listen on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener
