"""Wire batching: the requests that have arrived become runs, and runs become answers.

Nothing waits for a batch to fill: what arrives while a run is under way is the next batch (a version may ask for
`max_wait_ms` more). One bad request fails alone: it is refused when it is decoded, and a run that fails is repeated
request by request.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import orjson

from cluster.frames import FLAG_DEFLATE, FLAG_GZIP, FLAG_STREAM
from nstarx.errors import ModelFailed, NStarXError
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


class Batcher:
    """Queue, runs and answers of one replica. Everything but the runs themselves happens on one event loop."""

    def __init__(
        self, spec: ModelSpec, runtime: Runtime, loop: asyncio.AbstractEventLoop, clock: Clock = time.perf_counter_ns
    ) -> None:
        self.spec = spec
        self.runtime = runtime
        self.counters = Counters()
        self.pace = Pace()
        self._loop = loop
        self._clock = clock
        self._codec = Codec(spec)
        self._queue: deque[Call] = deque()
        self._formed: deque[Batch] = deque()
        self._withdrawn: set[tuple[Caller, int]] = set()
        self._tasks: dict[tuple[Caller, int], asyncio.Task[None]] = {}
        self._running: dict[int, int] = {}
        self._scheduled: asyncio.Handle | None = None
        self._threads = ThreadPoolExecutor(spec.limits.max_concurrent_runs, "run")
        self._last_logged = 0
        self.configure(spec.batching)

    def configure(self, batching: Batching) -> None:
        """Take new batching limits; they hold from the next batch on."""
        self._most = batching.max_batch_size if self.spec.batchable else 1
        self._patience = batching.max_wait_ms / 1000 if self._most > 1 else 0.0

    # What lanes say

    def add(self, calls: Batch) -> None:
        """Calls that arrived together. Those beyond the queue's bound are turned away at once."""
        room = self.spec.limits.max_queue_size - self.backlog
        for call in calls[room:] if room > 0 else calls:
            self.counters.rejected += 1
            call.lane.overloaded(call)
            call.lane.flush()
        self._queue.extend(calls[: max(room, 0)])
        self._schedule()

    def withdraw(self, lane: Caller, id: int) -> None:
        """Nobody waits for this call any more: it is not run, or its task is cancelled."""
        if task := self._tasks.get((lane, id)):
            task.cancel()
        elif self._queue:
            self._withdrawn.add((lane, id))

    # What the replica asks

    @property
    def backlog(self) -> int:
        """Calls waiting or running."""
        return len(self._queue) + len(self._formed) + len(self._running)

    def running_for(self) -> float:
        """Seconds that the oldest run under way has taken; 0 without one. Safe to ask from any thread."""
        oldest = min(self._running.copy().values(), default=0)
        return (self._clock() - oldest) / 1e9 if oldest else 0.0

    def close(self) -> None:
        """Drop what is left."""
        for task in list(self._tasks.values()):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Forming batches

    def _schedule(self) -> None:
        if not (self._queue or self._formed) or len(self._running) >= self.spec.limits.max_concurrent_runs:
            return
        full = not self._patience or self._formed or len(self._queue) >= self._most
        if self._scheduled and full and self._patience:
            self._scheduled.cancel()
            self._scheduled = None
        if not self._scheduled:
            self._scheduled = (
                self._loop.call_soon(self._next) if full else self._loop.call_later(self._patience, self._next)
            )

    def _next(self) -> None:
        """Start one run, and see to it that the next one follows."""
        self._scheduled = None
        if not self._formed:
            self._form()
        if self._formed:
            self._start(self._formed.popleft())
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
        if not self._queue:
            self._withdrawn.clear()

    def _decoded(self, now: int) -> Iterable[Call]:
        queue, waited = self._queue, self.counters.waited
        for _ in range(min(len(queue), self._most)):
            call = queue.popleft()
            if call.lane.closed or (self._withdrawn and (call.lane, call.id) in self._withdrawn):
                self.counters.cancelled += 1
            elif call.expires and now >= call.expires:
                self._expire(call)
            elif self._decode(call, now):
                waited(now - call.arrived, 1)
                yield call

    def _decode(self, call: Call, now: int) -> bool:
        try:
            payload = inflate(call.payload, call.flags) if call.flags & COMPRESSED else call.payload
            request = call.request = self._codec.decode(payload, call.json_length)
        except Exception as error:
            self._refuse(call, error, self._clock() - now)
            return False
        if request.timeout_s is not None and now - call.arrived > request.timeout_s * 1e9:
            self._expire(call)
            return False
        return True

    def _expire(self, call: Call) -> None:
        self.counters.expired += 1
        call.lane.expired(call)
        call.lane.flush()

    # Running

    def _start(self, batch: Batch) -> None:
        if self.runtime.mode == "stream":
            self._spawn(batch, self._stream(batch[0]))
        elif self.runtime.mode == "async":
            self._spawn(batch, self._run_async(batch))
        elif self.pace.on_loop:
            self._running[id(batch)] = self._clock()
            self._finish(batch, partial(self._run, batch))
        else:
            self._running[id(batch)] = self._clock()
            future = self._loop.run_in_executor(self._threads, self._run, batch)
            future.add_done_callback(lambda done: self._finish(batch, done.result))

    def _run(self, batch: Batch) -> tuple[list[Answer], tuple[int, int, int, int]]:
        """One run from decoded requests to encoded answers, on whichever thread."""
        requests = [call.request for call in batch]
        began = self._clock()
        inputs = stack(requests)
        ready = self._clock()
        outputs = self.runtime.infer(inputs)
        inferred = self._clock()
        answers = self._codec.encode(requests, outputs)
        return answers, (began, ready, inferred, self._clock())

    def _finish(self, batch: Batch, result: Callable[[], tuple[list[Answer], tuple[int, int, int, int]]]) -> None:
        """Send a run's answers; a run that failed is repeated one request at a time, so that only the bad one fails."""
        try:
            answers, times = result()
        except Exception as error:
            began = self._running.pop(id(batch), 0)
            if len(batch) > 1:
                self._formed.extendleft([call] for call in reversed(batch))
            else:
                self._refuse(batch[0], error, self._clock() - began)
        else:
            self._running.pop(id(batch), None)
            self.pace.note(times[2] - times[1])
            self._answer(batch, answers, times)
        self._schedule()

    def _answer(self, batch: Batch, answers: list[Answer], times: tuple[int, int, int, int]) -> None:
        rows = sum(call.request.rows for call in batch) or len(batch)
        self.counters.ran(len(batch), rows, times, int(time.time() * 1000))
        for call, (body, json_length) in zip(batch, answers, strict=True):
            call.lane.respond(call, 200, body, json_length)
        for lane in {call.lane for call in batch}:
            lane.flush()

    def _refuse(self, call: Call, error: BaseException, nanoseconds: int) -> None:
        """Answer one call with what went wrong."""
        if not isinstance(error, NStarXError):
            self._log(error)
            error = ModelFailed(str(self.spec.ref), _first_line(error))
        self.counters.failed_after(nanoseconds)
        call.lane.respond(call, error.status, orjson.dumps({"error": error.sentence}))
        call.lane.flush()

    def _log(self, error: BaseException) -> None:
        """A failing model's stack, at most once a second: it may fail thousands of times in one."""
        now = self._clock()
        if now - self._last_logged > 1_000_000_000:
            self._last_logged = now
            log.error("%s failed", self.spec.ref, exc_info=error, extra={"action": "model_failed"})

    # Runs that are coroutines

    def _spawn(self, batch: Batch, run: Any) -> None:
        task = self._loop.create_task(run)
        keys = [(call.lane, call.id) for call in batch]
        self._running[id(batch)] = self._clock()
        if len(batch) == 1:
            self._tasks[keys[0]] = task
        task.add_done_callback(lambda _: self._ended(batch))

    def _ended(self, batch: Batch) -> None:
        self._running.pop(id(batch), None)
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
        except asyncio.CancelledError:
            self.counters.cancelled += len(batch)
            raise
        except Exception as error:
            if len(batch) > 1:
                self._formed.extendleft([call] for call in reversed(batch))
            else:
                self._refuse(batch[0], error, self._clock() - began)
        else:
            self._answer(batch, answers, (began, ready, inferred, self._clock()))

    async def _stream(self, call: Call) -> None:
        """Send each partial result as it comes, or all of them as one answer to a client that takes no stream."""
        began = self._clock()
        parts: list[Tensors] = []
        sent = False
        try:
            async for outputs in self.runtime.infer_stream(call.request.inputs):
                if call.flags & FLAG_STREAM:
                    call.lane.chunk(call, self._codec.encode([call.request], outputs)[0].body)
                    call.lane.flush()
                    sent = True
                else:
                    parts.append(outputs)
            done = self._clock()
            self.counters.ran(1, 1, (began, began, done, done), int(time.time() * 1000))
            if call.flags & FLAG_STREAM:
                call.lane.end(call)
            else:
                [(body, json_length)] = self._codec.encode([call.request], _joined(parts))
                call.lane.respond(call, 200, body, json_length)
        except asyncio.CancelledError:
            self.counters.cancelled += 1
            raise
        except Exception as error:
            if not sent:
                self._refuse(call, error, self._clock() - began)
                return
            self._log(error)
            self.counters.failed_after(self._clock() - began)
            sentence = ModelFailed(str(self.spec.ref), _first_line(error)).sentence
            call.lane.chunk(call, orjson.dumps({"error": sentence}))
            call.lane.end(call)
        call.lane.flush()


def _joined(parts: list[Tensors]) -> Tensors:
    """Partial results one after the other, along the first dimension."""
    if not parts:
        raise ValueError("it yielded nothing")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _first_line(error: BaseException) -> str:
    """What a client may know of an exception: its kind and the first line of its message."""
    line = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
