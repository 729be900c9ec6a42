"""A replica: one loaded version, its batcher and its lanes, known to the coordinator."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping
from random import Random
from typing import Any

import psutil

from cluster.coordination import Coordination
from cluster.records import ReplicaRecord
from cluster.trace_export import TraceExporter
from cluster.tracing import Tracer
from nstarx.errors import NStarXError
from nstarx.repository import Repository
from nstarx.spec.tracing import TracingSpec
from nstarx.spec.version import VersionRef
from serving.batcher import Batcher
from serving.lanes import LaneServer
from serving.runtimes.loading import load_runtime
from serving.settings import apply_settings, differ
from serving.sockets import remove, socket_path
from serving.traces import Traces

log = logging.getLogger("nstarx.serving")

BEAT_S = 1.0
DRAIN_S = 15.0
EXPORT_S = 2.0
"""How long the last spans may take on their way out."""
LEAVE_S = 2.0
"""How long the coordinator may take to say goodbye; gateways learn of it from their lanes all the same."""


class Replica:
    """Lives on one event loop, its own thread's. `start` returns when it is ready and registered."""

    def __init__(
        self,
        repository: Repository,
        ref: VersionRef,
        node: str,
        host: str | None,
        coordination: Coordination,
        tracing: TracingSpec | None = None,
    ) -> None:
        self.id = f"{ref}-{secrets.token_hex(4)}"
        self.ref = ref
        self.beat_at = time.monotonic()
        """When the event loop last showed that it lives."""
        self._repository = repository
        self._node = node
        self._host = host
        self._coordination = coordination
        self._process = psutil.Process()
        self._ours: dict[str, Any] = {}
        """Settings from the deployment's own configuration."""
        self._live: dict[str, Any] = {}
        """Settings given to the coordinator."""
        self._seen: dict[str, Any] = {}
        """What the coordinator last said, refused or not."""
        self._refused = ""
        """Why the model would not take what the coordinator last said."""
        self._tasks: list[asyncio.Task[None]] = []
        self._tracer = Tracer(tracing, Random()) if tracing else None
        self._exporter = TraceExporter(self._tracer, tracing, self.id) if self._tracer and tracing else None

    async def start(self) -> None:
        """Load, warm up, listen, register. Raises ModelLoadFailed or InvalidConfiguration."""
        self.spec, self.runtime = await load_runtime(self._repository, self.ref)
        self._announced = self.spec
        self._applied = self.spec.settings
        traces = Traces(self._tracer, str(self.ref), self.id)
        self.batcher = Batcher(self.spec, self.runtime, asyncio.get_running_loop(), traces=traces)
        key = secrets.token_bytes(32)
        self.lanes = LaneServer(str(self.ref), key, self.batcher, self.report)
        self._socket = socket_path()
        addresses = [await self.lanes.listen_unix(self._socket)]
        if self._host:
            addresses.append(await self.lanes.listen_tcp(self._host))
        self._record = ReplicaRecord(
            replica=self.id, ref=str(self.ref), node=self._node, addresses=tuple(addresses), key=key.hex()
        )
        await self._register()
        self._tasks += asyncio.create_task(self._pulse()), asyncio.create_task(self._beat())
        if self._exporter:
            self._exporter.start()

    async def stop(self) -> None:
        """Leave: gateways are told, what they have sent is answered, then everything closes."""
        for task in self._tasks:
            task.cancel()
        # Whatever has become of the coordinator, what gateways have sent is answered.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LEAVE_S):
                await self._coordination.leave(self.id)
        until = time.monotonic() + DRAIN_S
        await self.lanes.drain(DRAIN_S)
        remove(self._socket)
        if await self.batcher.close(max(until - time.monotonic(), 0)):
            self.runtime.close()
        else:
            log.warning("a run of %s goes on; its model is not closed", self.ref, extra={"action": "run_abandoned"})
        if self._exporter:
            await asyncio.to_thread(self._exporter.close, EXPORT_S)

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Settings from the deployment's own configuration; those given to the coordinator go over them.

        Raises InvalidConfiguration.
        """
        self._settle(dict(settings), self._live)
        announced = self.spec.model_copy(update={"settings": {**self.spec.settings, **self._ours}})
        if announced != self._announced:
            self._announced = announced
            await self._register()

    def unhealthy(self, now: float) -> str | None:
        """Why this replica should be replaced, if it should. May be asked from any thread; `now` is time.monotonic."""
        limit = self.spec.limits.hang_timeout_s
        running, silent = self.batcher.running_for(), now - self.beat_at
        if running > limit:
            return f"a run has taken {running:.1f} s, more than hang_timeout_s = {limit:g}"
        if silent > limit:
            return f"the event loop has been silent for {silent:.1f} s, more than hang_timeout_s = {limit:g}"
        return None

    def report(self) -> dict[str, Any]:
        """Counters of this replica and its process, and what became of live settings."""
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
        return {
            **self.batcher.counters.as_dict(),
            "backlog": self.batcher.backlog,
            "settings": self._seen,
            "settings_refused": self._refused,
            "cpu_s": times.user + times.system,
            "rss_bytes": memory.rss,
        }

    async def _register(self) -> None:
        """Tell the coordinator, however long that takes: before it knows, no gateway can."""
        while True:
            try:
                self._follow(await self._coordination.register(self._record, self._announced))
                return
            except NStarXError as error:
                log.warning("%s not registered: %s", self.ref, error, extra={"action": "register_failed"})
                await asyncio.sleep(BEAT_S)

    async def _pulse(self) -> None:
        """Show that the event loop lives, also while the coordinator doesn't answer."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.beat_at = time.monotonic()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                beat = await self._coordination.beat(self.id)
                if beat.known:
                    self._follow(beat.settings)
                else:
                    await self._register()
            except NStarXError:
                continue
            except Exception:
                log.exception("a beat failed", extra={"action": "beat_failed"})

    def _follow(self, live: dict[str, Any]) -> None:
        """Take what the coordinator says; what the model refuses is logged, and not tried again."""
        if not differ(live, self._seen):
            return
        self._seen = live
        self._refused = ""
        try:
            self._settle(self._ours, live)
        except NStarXError as error:
            self._refused = error.sentence
            log.warning("settings of %s refused: %s", self.ref, error, extra={"action": "settings_refused"})

    def _settle(self, ours: dict[str, Any], live: dict[str, Any]) -> None:
        """Apply settings when they differ. Raises InvalidConfiguration, and changes nothing then."""
        wanted = live or {**self.spec.settings, **ours}
        if differ(wanted, self._applied):
            apply_settings(self.spec, self.batcher, self.runtime, wanted, self._applied)
        self._ours, self._live, self._applied = ours, live, wanted
