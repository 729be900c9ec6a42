"""Wire batching: the requests that have arrived become runs, and runs become answers.

Nothing waits for a batch to fill: what arrives while a run is under way is the next batch (a version may ask for
`max_wait_ms` more). One bad request fails alone: it is refused when it is decoded, and a run that fails is repeated
request by request.

What waits is in `queue`, made into batches by `forming` and run by `runs`, `coroutines` or `streams`; `responder` tells
the callers. Here is decided when the next run starts.
"""

import asyncio
import contextlib
import time

from nstarx.spec.model import Batching, ModelSpec
from serving.bodies import Decoded, LargeBodies
from serving.call import Call, Caller
from serving.codec import Codec
from serving.coroutines import AsyncRuns
from serving.counters import Counters
from serving.forming import Former
from serving.lone import LoneRun
from serving.pace import Pace
from serving.queue import Queue
from serving.responder import Responder
from serving.runs import Clock, Runs, SyncRuns
from serving.runtimes.runtime import Runtime
from serving.streams import StreamRuns
from serving.traces import Traces


class Batcher:
    """Queue, runs and answers of one replica. Everything but the runs themselves happens on one event loop."""

    def __init__(
        self,
        spec: ModelSpec,
        runtime: Runtime,
        loop: asyncio.AbstractEventLoop,
        clock: Clock = time.perf_counter_ns,
        traces: Traces | None = None,
    ) -> None:
        # Partial results are of one request, and of as many rows as the model likes.
        self.spec = spec.model_copy(update={"batching": Batching()}) if runtime.mode == "stream" else spec
        self.runtime = runtime
        self.counters = Counters()
        self.traces = traces or Traces()
        self._loop = loop
        self._clock = clock
        self._compose()
        self._running = self._runs.under_way
        self._idle: asyncio.Event | None = None
        """Set when the last run has ended, once somebody closes."""
        self._scheduled: asyncio.Handle | None = None
        self._patient = False
        """What is scheduled is a timer, and may be brought forward."""
        self.configure(spec.batching)

    def _compose(self) -> None:
        """The parts, each with those that it speaks to."""
        codec = Codec(self.spec)
        self._responder = responder = Responder(self.spec.ref, self.counters, self.traces)
        self._queue = Queue(responder)
        self._large = LargeBodies(codec, self._loop, self._join)
        self._former = Former(codec, self._queue, responder, self.counters, self._large, self._clock)
        shared = self.runtime, codec, self._queue, responder, self._loop, self._clock
        self._runs: Runs
        self._lone: LoneRun | None = None
        if self.runtime.mode == "sync":
            self._runs = SyncRuns(*shared, self.spec.limits.max_concurrent_runs)
            self._lone = LoneRun(self._runs, codec, self.counters, self.traces, self._clock)
        else:
            self._runs = (StreamRuns if self.runtime.mode == "stream" else AsyncRuns)(*shared)
        self._runs.ended = self._schedule

    def configure(self, batching: Batching) -> None:
        """Take new batching limits; they hold from the next batch on."""
        self._most = batching.max_batch_size if self.spec.batchable else 1
        self._patience = batching.max_wait_ms / 1000 if self._most > 1 else 0.0
        self._at_once = None if self._patience else self._lone
        """Runs a call that comes alone and at rest; None where that may not run at once."""
        self._unschedule()
        self._schedule()

    @property
    def pace(self) -> Pace:
        """Where runs take place."""
        return self._runs.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        self._runs.pace = pace

    # What lanes say

    def add(self, calls: list[Call], alone: bool = False) -> None:
        """Calls that arrived together. Those beyond the queue's bound are turned away at once.

        `alone` says that no other lane can have brought more in the same turn of the event loop, so that a short run
        need not wait for its end.
        """
        if alone and self._at_once and self._runs.pace.on_loop and not (self._running or self._scheduled):
            self._add_at_rest(calls, self._at_once)
        else:
            self._queue.calls.extend(self._admitted(calls, self.spec.limits.max_queue_size - self.backlog))
            self._schedule()

    def withdraw(self, lane: Caller, id: int) -> None:
        """Nobody waits for this call any more: it is not run, or its task is cancelled."""
        self.traces.forget(lane, id)
        if not self._runs.cancel(lane, id):
            self._queue.withdraw(lane, id, self._clock(), 2 * self.spec.limits.max_queue_size)

    def forsake(self, lane: Caller) -> None:
        """A closed lane's tasks are cancelled; what it has in the queue will be left out."""
        self.traces.forget(lane)
        self._runs.cancel_lane(lane)

    # What the replica asks

    @property
    def backlog(self) -> int:
        """Calls waiting or running."""
        return len(self._queue) + self._running.calls

    def running_for(self) -> float:
        """Seconds that the oldest run under way has taken, or a stream since its last part; 0 without one.

        Safe to ask from any thread.
        """
        oldest = self._running.oldest
        return (self._clock() - oldest) / 1e9 if oldest else 0.0

    async def close(self, timeout_s: float) -> bool:
        """Drop what waits, and see the runs under way to their end. False when one goes on after `timeout_s`."""
        self._unschedule()
        self._queue.drop()
        self._large.close()
        self._runs.cancel_all()
        self._idle = asyncio.Event()
        if self._running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        self._runs.close()
        return not self._running

    # What is admitted

    def _add_at_rest(self, calls: list[Call], lone: LoneRun) -> None:
        """Nothing waits but what is decoded apart, so calls need not pass through the queue."""
        room = self.spec.limits.max_queue_size - len(self._queue.apart)
        if len(calls) == 1 and room > 0 and lone.run(calls[0]):
            return
        calls = self._admitted(calls, room)
        if len(calls) > self._most:
            self._queue.calls.extend(calls[self._most :])
        self._take(calls[: self._most], len(calls) > 1)
        if self._queue.formed or self._queue.calls:
            self._schedule()

    def _admitted(self, calls: list[Call], room: int) -> list[Call]:
        """Those for which there is room; the others are turned away."""
        if room >= len(calls):
            return calls
        room = max(room, 0)
        self._responder.reject(calls[room:])
        return calls[:room]

    # When the next run starts

    def _schedule(self) -> None:
        """See to it that the next run starts: soon, or when more calls have had their time to come."""
        if not (self._queue.calls or self._queue.formed):
            self._queue.forget_withdrawals()
            if self._idle and not self._running:
                self._idle.set()
            return
        if (self._scheduled and not self._patient) or len(self._running) >= self.spec.limits.max_concurrent_runs:
            return
        wait = self._wait() if self._patience else 0.0
        if not wait:
            self._unschedule()
            self._scheduled = self._loop.call_soon(self._next)
        elif not self._scheduled:
            self._patient = True
            self._scheduled = self._loop.call_later(wait, self._next)

    def _unschedule(self) -> None:
        if self._scheduled:
            self._scheduled.cancel()
        self._scheduled = None
        self._patient = False

    def _wait(self) -> float:
        """Seconds that the oldest call may still wait for company."""
        queue = self._queue
        if queue.formed or len(queue.calls) >= self._most:
            return 0.0
        return max(self._patience - (self._clock() - queue.calls[0].arrived) / 1e9, 0.0)

    def _next(self) -> None:
        """Start one run, and see to it that the next one follows."""
        self._scheduled = None
        self._patient = False
        if self._queue.formed:
            now = self._clock()
            if batch := self._queue.pop_formed(now):
                self._runs.start(batch, now)
        else:
            self._take(self._queue.take(self._most))
        self._schedule()

    def _take(self, calls: list[Call], maybe_plain: bool = True) -> None:
        """Form batches of calls whose turn has come, and start the first."""
        now = self._clock()
        batches = self._former.form(calls, self._most, now, maybe_plain)
        if len(batches) > 1:
            self._queue.formed.extend(batches[1:])
        if batches:
            self._runs.start(batches[0], now)

    def _join(self, call: Call, result: Decoded, began: int) -> None:
        """A large body has been decoded, if its call was not dropped meanwhile."""
        if call in self._queue.apart:
            self._former.join(call, result, began)
            self._schedule()
