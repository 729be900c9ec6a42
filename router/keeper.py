"""Keeps a lane open to every replica of the snapshot."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from cluster.records import ReplicaRecord
from nstarx.errors import LaneError
from router.lanes import Backend, Lane, connect

log = logging.getLogger("nstarx.lanes")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Between two attempts to reach a replica."""
REPORT_S = 1.0
"""How long the coordinator may take to hear of a loss, before the replica is tried again anyway."""

ReportLoss = Callable[[str], Awaitable[None]]


class Keeper:
    """One replica's lane: opened, opened again when it breaks, drained when the replica leaves the snapshot."""

    def __init__(self, record: ReplicaRecord, limit: int, backend: Backend, node: str, report_loss: ReportLoss) -> None:
        self.record = record
        self.lane: Lane | None = None
        self._limit = limit
        self._backend = backend
        self._node = node
        self._report_loss = report_loss
        self._task = asyncio.create_task(self._keep())

    def release(self) -> None:
        """The replica has left: open no more lanes, and let the present one finish what it has."""
        self._task.cancel()
        if self.lane:
            self.lane.drain()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                self.lane = await connect(self.record, self._limit, self._node)
            except LaneError as error:
                log.warning("no lane to %s: %s", self.record.ref, error, extra={"action": "lane_failed"})
            else:
                pause = FIRST_PAUSE_S
                self._backend.add(self.lane)
                await asyncio.shield(self.lane.gone)
            await asyncio.gather(self._report(), asyncio.sleep(pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _report(self) -> None:
        # A hint: the coordinator may be gone, and misses the replica's beats by itself.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(REPORT_S):
                await self._report_loss(self.record.replica)
