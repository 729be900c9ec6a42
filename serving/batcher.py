"""Wire batching: the requests that have arrived become runs, and runs become answers.

Nothing waits for a batch to fill: what arrives while a run is under way is the next batch (a version may ask for
`max_wait_ms` more). One bad request fails alone: it is refused when it is decoded, and a run that fails is repeated
request by request.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import orjson

from cluster.frames import FLAG_DEFLATE, FLAG_GZIP, FLAG_STREAM
from nstarx.errors import InvalidRequest, ModelFailed, NStarXError
from nstarx.spec.model import Batching, ModelSpec
from nstarx.tensors import Tensors
from serving.call import Call, Caller
from serving.codec import Answer, Codec, stack
from serving.compression import inflate
from serving.counters import Counters
from serving.pace import Pace
from serving.runtimes.runtime import Runtime

log = logging.getLogger("nstarx.serving")

COMPRESSED = FLAG_GZIP | FLAG_DEFLATE
Clock = Callable[[], int]
Batch = list[Call]
"""Calls that run together: one, or several of one group."""
Times = tuple[int, int, int, int]
"""When a run began, had its input, had inferred, had its output."""
Result = tuple[list[Answer], Times] | BaseException
"""What a run came to. Errors are returned: no future can hold a StopIteration, and a SystemExit would end the loop."""

FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""What users' code raises: it may also exit, or await something cancelled."""


class Batcher:
    """Queue, runs and answers of one replica. Everything but the runs themselves happens on one event loop."""

    def __init__(
        self, spec: ModelSpec, runtime: Runtime, loop: asyncio.AbstractEventLoop, clock: Clock = time.perf_counter_ns
    ) -> None:
        # Partial results are of one request, and of as many rows as the model likes.
        self.spec = spec.model_copy(update={"batching": Batching()}) if runtime.mode == "stream" else spec
        self.runtime = runtime
        self.counters = Counters()
        self.pace = Pace()
        self._loop = loop
        self._clock = clock
        self._codec = Codec(self.spec)
        self._queue: deque[Call] = deque()
        self._formed: deque[Batch] = deque()
        self._withdrawn: dict[tuple[Caller, int], int] = {}
        """When each call was withdrawn, so that a later one with its id is not taken for it."""
        self._tasks: dict[tuple[Caller, int], asyncio.Task[None]] = {}
        """Of the calls that run by themselves."""
        self._alive: set[asyncio.Task[None]] = set()
        """Every task: the loop alone would let one be collected."""
        self._running: dict[int, tuple[int, Batch]] = {}
        """Runs under way, and since when; 0 while one waits for its client instead of the model."""
        self._idle: asyncio.Event | None = None
        """Set when the last run has ended, once somebody closes."""
        self._scheduled: asyncio.Handle | None = None
        self._patient = False
        """What is scheduled is a timer, and may be brought forward."""
        self._threads = ThreadPoolExecutor(spec.limits.max_concurrent_runs, "run")
        self._last_logged = 0
        self.configure(spec.batching)

    def configure(self, batching: Batching) -> None:
        """Take new batching limits; they hold from the next batch on."""
        self._most = batching.max_batch_size if self.spec.batchable else 1
        self._patience = batching.max_wait_ms / 1000 if self._most > 1 else 0.0
        self._unschedule()
        self._schedule()

    # What lanes say

    def add(self, calls: Batch, alone: bool = False) -> None:
        """Calls that arrived together. Those beyond the queue's bound are turned away at once.

        `alone` says that no other lane can have brought more in the same turn of the event loop, so that a short run
        need not wait for its end.
        """
        room = max(self.spec.limits.max_queue_size - self.backlog, 0)
        if room < len(calls):
            self._reject(calls[room:])
            calls = calls[:room]
        self._queue.extend(calls)
        if alone and self.pace.on_loop and not (self._scheduled or self._running or self._patience):
            self._next()
        else:
            self._schedule()

    def withdraw(self, lane: Caller, id: int) -> None:
        """Nobody waits for this call any more: it is not run, or its task is cancelled."""
        if task := self._tasks.get((lane, id)):
            task.cancel()
        elif self._queue or self._formed:
            if len(self._withdrawn) >= 2 * self.spec.limits.max_queue_size:
                waiting = {(call.lane, call.id) for call in chain(self._queue, *self._formed)}
                self._withdrawn = {key: when for key, when in self._withdrawn.items() if key in waiting}
            self._withdrawn[lane, id] = self._clock()

    def forsake(self, lane: Caller) -> None:
        """A closed lane's tasks are cancelled; what it has in the queue will be left out."""
        for (owner, _), task in list(self._tasks.items()):
            if owner is lane:
                task.cancel()

    # What the replica asks

    @property
    def backlog(self) -> int:
        """Calls waiting or running."""
        count = len(self._queue)
        for batch in self._formed:
            count += len(batch)
        for _, batch in self._running.values():
            count += len(batch)
        return count

    def running_for(self) -> float:
        """Seconds that the oldest run under way has taken, or a stream since its last part; 0 without one.

        Safe to ask from any thread.
        """
        oldest = min((began for began, _ in self._running.copy().values() if began), default=0)
        return (self._clock() - oldest) / 1e9 if oldest else 0.0

    async def close(self, timeout_s: float) -> bool:
        """Drop what waits, and see the runs under way to their end. False when one goes on after `timeout_s`."""
        self._unschedule()
        self.counters.cancelled += len(self._queue) + sum(map(len, self._formed))
        self._queue.clear()
        self._formed.clear()
        for task in self._alive:
            task.cancel()
        self._idle = asyncio.Event()
        if self._running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout_s)
        self._threads.shutdown(wait=False)
        return not self._running

    # Forming batches

    def _schedule(self) -> None:
        """See to it that the next run starts: soon, or when more calls have had their time to come."""
        if not (self._queue or self._formed):
            self._withdrawn.clear()
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
        if self._formed or len(self._queue) >= self._most:
            return 0.0
        return max(self._patience - (self._clock() - self._queue[0].arrived) / 1e9, 0.0)

    def _next(self) -> None:
        """Start one run, and see to it that the next one follows."""
        self._scheduled = None
        self._patient = False
        if self._formed:
            now = self._clock()
            batch = [call for call in self._formed.popleft() if not self._is_unwanted(call, now)]
        else:
            self._form()
            batch = self._formed.popleft() if self._formed else []
        if batch:
            self._start(batch)
        self._schedule()

    def _form(self) -> None:
        """Decode what waits, up to one batch's worth, and sort it into groups that can be stacked."""
        now = self._clock()
        groups: dict[Hashable, tuple[Batch, int]] = {}
        for call in self._decoded(now):
            group = call.request.group
            if group is None:
                self._formed.append([call])
                continue
            batch, rows = groups.get(group, (None, 0))
            rows += call.request.rows
            if batch is None or rows > self._most:
                batch, rows = [], call.request.rows
                self._formed.append(batch)
            batch.append(call)
            groups[group] = batch, rows

    def _decoded(self, now: int) -> Iterable[Call]:
        queue, waited = self._queue, self.counters.waited
        for _ in range(min(len(queue), self._most)):
            call = queue.popleft()
            if not self._is_unwanted(call, now) and self._decode(call, now):
                waited(now - call.arrived, 1)
                yield call

    def _is_unwanted(self, call: Call, now: int) -> bool:
        """Whether nobody waits for this call any more; it has its end then."""
        if call.lane.closed or (
            self._withdrawn and self._withdrawn.pop((call.lane, call.id), call.arrived - 1) >= call.arrived
        ):
            self.counters.cancelled += 1
            return True
        if call.expires and now >= call.expires:
            self._expire(call)
            return True
        return False

    def _decode(self, call: Call, now: int) -> bool:
        try:
            payload = inflate(call.payload, call.flags) if call.flags & COMPRESSED else call.payload
            request = call.request = self._codec.decode(payload, call.json_length)
        except Exception as error:
            self._refuse(call, error, self._clock() - now)
            return False
        if request.timeout_s is None:
            return True
        own = call.arrived + int(request.timeout_s * 1e9)
        call.expires = min(call.expires or own, own)
        return not self._is_unwanted(call, now)

    def _expire(self, call: Call) -> None:
        self.counters.expired += 1
        call.lane.expired(call)
        call.lane.flush()

    def _reject(self, calls: Sequence[Call]) -> None:
        self.counters.rejected += len(calls)
        for call in calls:
            call.lane.overloaded(call)
        for lane in {call.lane for call in calls}:
            lane.flush()

    # Running

    def _start(self, batch: Batch) -> None:
        self._running[id(batch)] = self._clock(), batch
        if self.runtime.mode == "stream":
            self._spawn(batch, self._stream(batch))
        elif self.runtime.mode == "async":
            self._spawn(batch, self._run_async(batch))
        elif self.pace.on_loop:
            self._finish(batch, self._run(batch))
        else:
            self._threads.submit(self._run_apart, batch)

    def _run(self, batch: Batch) -> Result:
        """One run from decoded requests to encoded answers, on whichever thread."""
        try:
            requests = [call.request for call in batch]
            began = self._clock()
            inputs = stack(requests)
            ready = self._clock()
            outputs = self.runtime.infer(inputs)
            inferred = self._clock()
            answers = self._codec.encode(requests, outputs)
            return answers, (began, ready, inferred, self._clock())
        except FAILURES as error:
            return error

    def _run_apart(self, batch: Batch) -> None:
        result = self._run(batch)
        self._loop.call_soon_threadsafe(self._finish, batch, result)

    def _finish(self, batch: Batch, result: Result) -> None:
        """Send a run's answers."""
        began, _ = self._running.pop(id(batch))
        if isinstance(result, BaseException):
            self.pace.note(self._clock() - began)
            self._fail(batch, result, began)
        else:
            answers, times = result
            self.pace.note(times[2] - times[1])
            self._answer(batch, answers, times)
        self._schedule()

    def _fail(self, batch: Batch, error: BaseException, began: int) -> None:
        """A run that failed is repeated one request at a time, so that only the bad one fails."""
        if len(batch) > 1:
            self._formed.extendleft([call] for call in reversed(batch))
        else:
            self._refuse(batch[0], error, self._clock() - began)

    def _answer(self, batch: Batch, answers: list[Answer], times: Times) -> None:
        for call, (body, json_length) in zip(batch, answers, strict=True):
            call.lane.respond(call, 200, body, json_length)
        for lane in {call.lane for call in batch}:
            lane.flush()
        rows = sum(call.request.rows for call in batch) or len(batch)
        self.counters.ran(len(batch), rows, times, int(time.time() * 1000))

    def _refuse(self, call: Call, error: BaseException, nanoseconds: int, begun: bool = False) -> None:
        """Answer one call with what went wrong; `begun` when the client has a part of its stream already."""
        if not isinstance(error, NStarXError):
            self._log(error)
            error = ModelFailed(str(self.spec.ref), _first_line(error))
        self.counters.failed_after(nanoseconds)
        # A model's words may hold what UTF-8 can't.
        body = orjson.dumps({"error": error.sentence.encode(errors="replace").decode()})
        if begun:
            call.lane.chunk(call, body)
            call.lane.end(call, error.status)
        else:
            call.lane.respond(call, error.status, body)
        call.lane.flush()

    def _log(self, error: BaseException) -> None:
        """A failing model's stack, at most once a second: it may fail thousands of times in one."""
        now = self._clock()
        if now - self._last_logged > 1_000_000_000:
            self._last_logged = now
            log.error("%s failed", self.spec.ref, exc_info=error, extra={"action": "model_failed"})

    # Runs that are coroutines

    def _spawn(self, batch: Batch, run: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(run)
        self._alive.add(task)
        if len(batch) == 1:
            self._tasks[batch[0].lane, batch[0].id] = task
        task.add_done_callback(lambda task: self._ended(batch, task))

    def _ended(self, batch: Batch, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.counters.cancelled += len(batch)
        self._alive.discard(task)
        self._running.pop(id(batch))
        self._tasks.pop((batch[0].lane, batch[0].id), None)
        self._schedule()

    async def _run_async(self, batch: Batch) -> None:
        requests = [call.request for call in batch]
        began = self._clock()
        try:
            inputs = stack(requests)
            ready = self._clock()
            outputs = await self.runtime.infer_async(inputs)
            inferred = self._clock()
            answers = self._codec.encode(requests, outputs)
        except FAILURES as error:
            if _is_withdrawal(error):
                raise
            self._fail(batch, error, began)
        else:
            self._answer(batch, answers, (began, ready, inferred, self._clock()))

    async def _stream(self, batch: Batch) -> None:
        """Send each partial result as it comes, or all of them as one answer to a client that takes no stream."""
        [call] = batch
        began = self._clock()
        parts: list[Tensors] = []
        begun = False
        try:
            async for outputs in self.runtime.infer_stream(call.request.inputs):
                if call.flags & FLAG_STREAM:
                    await self._send(batch, outputs)
                    begun = True
                else:
                    parts.append(outputs)
                # A model that awaits nothing must not hold the loop from its first part to its last.
                await asyncio.sleep(0)
                self._running[id(batch)] = self._clock(), batch
            inferred = self._clock()
            whole = None if call.flags & FLAG_STREAM else self._encode(call, _joined(parts))
        except FAILURES as error:
            if _is_withdrawal(error):
                raise
            self._refuse(call, error, self._clock() - began, begun)
            return
        self.counters.ran(1, 1, (began, began, inferred, self._clock()), int(time.time() * 1000))
        if whole:
            call.lane.respond(call, 200, *whole)
        else:
            call.lane.end(call)
        call.lane.flush()

    async def _send(self, batch: Batch, outputs: Tensors) -> None:
        """One part, at the pace at which it is taken."""
        [call] = batch
        part = self._encode(call, outputs)
        if part.json_length is not None:
            raise InvalidRequest("a stream is JSON alone; ask for its outputs without binary_data")
        call.lane.chunk(call, part.body)
        call.lane.flush()
        self._running[id(batch)] = 0, batch
        await call.lane.drained()

    def _encode(self, call: Call, outputs: Tensors) -> Answer:
        return self._codec.encode([call.request], outputs)[0]


def _is_withdrawal(error: BaseException) -> bool:
    """Whether the task was cancelled, and not something that its model awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _joined(parts: list[Tensors]) -> Tensors:
    """Partial results one after the other, along the first dimension."""
    if not parts:
        raise ValueError("it yielded nothing")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _first_line(error: BaseException) -> str:
    """What a client may know of an exception: its kind and the first line of its message."""
    try:
        line = str(error).strip().partition("\n")[0][:200]
    except Exception:  # A model's exceptions are a model's code too.
        line = ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
