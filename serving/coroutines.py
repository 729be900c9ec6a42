"""Runs that are coroutines: tasks on the event loop, which a call that is withdrawn takes along."""

import asyncio
from abc import abstractmethod
from dataclasses import dataclass, field

from serving.batch import Batch
from serving.call import Caller
from serving.runs import FAILURES, Runs


@dataclass(eq=False)
class CoroutineRuns(Runs):
    """Every run is a task; what it does is the subclass's."""

    _tasks: dict[tuple[Caller, int], asyncio.Task[None]] = field(default_factory=dict, init=False)
    """Of the calls that run by themselves."""
    _alive: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    """Every task: the loop alone would let one be collected."""

    def start(self, batch: Batch, now: int) -> None:
        self.under_way[batch] = now
        task = self.loop.create_task(self._run(batch))
        self._alive.add(task)
        if len(batch.calls) == 1:
            self._tasks[batch.calls[0].lane, batch.calls[0].id] = task
        task.add_done_callback(lambda task: self._ended(batch, task))

    def cancel(self, lane: Caller, id: int) -> bool:
        task = self._tasks.get((lane, id))
        if task is not None:
            task.cancel()
        return task is not None

    def cancel_lane(self, lane: Caller) -> None:
        for (owner, _), task in list(self._tasks.items()):
            if owner is lane:
                task.cancel()

    def cancel_all(self) -> None:
        for task in self._alive:
            task.cancel()

    @abstractmethod
    async def _run(self, batch: Batch) -> None:
        """From decoded requests to answers sent."""

    def _ended(self, batch: Batch, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.responder.forget(len(batch.calls))
        self._alive.discard(task)
        del self.under_way[batch]
        self._tasks.pop((batch.calls[0].lane, batch.calls[0].id), None)
        self.ended()


class AsyncRuns(CoroutineRuns):
    """Models whose `infer` is a coroutine function."""

    async def _run(self, batch: Batch) -> None:
        clock = self.clock
        began = clock()
        try:
            inputs = batch.inputs()
            ready = clock()
            outputs = await self.runtime.infer_async(inputs)
            inferred = clock()
            encoded = batch.encode(self.codec, outputs)
        except FAILURES as error:
            if is_withdrawal(error):
                raise
            self._failed(batch, error, began)
        else:
            self.responder.answer(batch, encoded, (began, ready, inferred, clock()))


def is_withdrawal(error: BaseException) -> bool:
    """Whether the task was cancelled, and not something that its model awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
