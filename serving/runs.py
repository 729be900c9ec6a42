"""Runs under way: what every way of running a batch shares, and the plain one, on the event loop or in a thread."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving.batch import Batch, Encoded
from serving.call import Caller
from serving.codec import Codec
from serving.counters import Times
from serving.pace import Pace
from serving.queue import Queue
from serving.responder import Responder
from serving.runtimes.runtime import Runtime

Clock = Callable[[], int]
Result = tuple[Encoded, Times] | BaseException
"""What a run came to. Errors are returned: no future can hold a StopIteration, and a SystemExit would end the loop."""

FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""What users' code raises: it may also exit, or await something cancelled."""


def _nobody_waits() -> None:
    return


class UnderWay(dict[Batch, int]):
    """Batches that run, and since when; 0 while one waits for its client instead of the model."""

    @property
    def calls(self) -> int:
        return sum([len(batch.calls) for batch in self]) if self else 0

    @property
    def oldest(self) -> int:
        """When the oldest run began, or a stream had its last part; 0 without one. Safe to ask from any thread."""
        return min((began for began in self.copy().values() if began), default=0)


@dataclass(eq=False)
class Runs(ABC):
    """Runs batches of one model version and sees to their answers. Everything but the runs is on one event loop."""

    runtime: Runtime
    codec: Codec
    queue: Queue
    responder: Responder
    loop: asyncio.AbstractEventLoop
    clock: Clock
    pace: Pace = field(default_factory=Pace, init=False)
    under_way: UnderWay = field(default_factory=UnderWay, init=False)
    ended: Callable[[], None] = field(default=_nobody_waits, init=False)
    """Called when a run has ended that had not when `start` returned."""

    @abstractmethod
    def start(self, batch: Batch, now: int) -> None:
        """Run a batch whose turn came at `now`, and send its answers."""

    def cancel(self, lane: Caller, id: int) -> bool:
        """Cancel the run of this call; False where it has none of its own, or none that can be cancelled."""
        return False

    def cancel_lane(self, lane: Caller) -> None:
        """Cancel what runs for this lane alone, where that can be."""
        return

    def cancel_all(self) -> None:
        """Cancel what can be."""
        return

    def close(self) -> None:
        """Begin nothing more."""
        return

    def _failed(self, batch: Batch, error: BaseException, began: int) -> None:
        self.queue.repeat(self.responder.fail(batch, error, began, self.clock()))


@dataclass(eq=False)
class SyncRuns(Runs):
    """Short runs on the event loop, long ones in a worker thread: see `Pace`."""

    threads: int = 1

    def __post_init__(self) -> None:
        self._infer = self.runtime.infer
        self._threads = ThreadPoolExecutor(self.threads, "run")

    def start(self, batch: Batch, now: int) -> None:
        self.under_way[batch] = now
        if self.pace.on_loop and not batch.large:
            result = self._run(batch, now)
            self.finish(batch, result, self.under_way.pop(batch))
        else:
            self._threads.submit(self._run_apart, batch)

    def finish(self, batch: Batch, result: Result, began: int) -> None:
        """Send what a run came to, and learn from how long it took."""
        if isinstance(result, BaseException):
            self._note(batch, self.clock() - began)
            self._failed(batch, result, began)
        else:
            encoded, times = result
            self._note(batch, times[2] - times[1])
            self.responder.answer(batch, encoded, times)

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _run(self, batch: Batch, began: int) -> Result:
        """One run from decoded requests to encoded answers, on whichever thread."""
        clock = self.clock
        try:
            inputs = batch.inputs()
            ready = clock()
            outputs = self._infer(inputs)
            inferred = clock()
            return batch.encode(self.codec, outputs), (began, ready, inferred, clock())
        except FAILURES as error:
            return error

    def _run_apart(self, batch: Batch) -> None:
        result = self._run(batch, self.clock())
        self.loop.call_soon_threadsafe(self._finish_apart, batch, result)

    def _finish_apart(self, batch: Batch, result: Result) -> None:
        self.finish(batch, result, self.under_way.pop(batch))
        self.ended()

    def _note(self, batch: Batch, nanoseconds: int) -> None:
        # What a large request takes says nothing about the others.
        if not batch.large:
            self.pace.note(nanoseconds)
