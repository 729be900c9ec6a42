"""Runs that stream: parts sent as they come, or all of them as one answer to a client that takes no stream."""

import asyncio

from cluster.frames import FLAG_STREAM
from nstarx.errors import InvalidRequest
from nstarx.tensors import Tensors
from serving.batch import Batch
from serving.codec import Answer
from serving.coroutines import CoroutineRuns, is_withdrawal
from serving.partial_results import joined
from serving.runs import FAILURES


class StreamRuns(CoroutineRuns):
    """Models whose `infer` is a generator. Every batch is of one call: parts have as many rows as the model likes."""

    async def _run(self, batch: Batch) -> None:
        [call] = batch.calls
        began = self.clock()
        takes_parts, begun = bool(call.flags & FLAG_STREAM), False
        parts: list[Tensors] = []
        try:
            async for outputs in self.runtime.infer_stream(batch.inputs()):
                if takes_parts:
                    await self._send(batch, outputs)
                    begun = True
                else:
                    parts.append(outputs)
                # A model that awaits nothing must not hold the loop from its first part to its last.
                await asyncio.sleep(0)
                self.under_way[batch] = self.clock()
            inferred = self.clock()
            whole = None if takes_parts else self._whole(batch, parts)
        except FAILURES as error:
            if is_withdrawal(error):
                raise
            self.responder.refuse(call, error, began, self.clock(), begun)
            return
        self.responder.end(call, whole, (began, began, inferred, self.clock()))

    async def _send(self, batch: Batch, outputs: Tensors) -> None:
        """One part, at the pace at which it is taken."""
        [call] = batch.calls
        part = self._encoded(batch, outputs)
        if part.json_length is not None:
            raise InvalidRequest("a stream is JSON alone; ask for its outputs without binary_data")
        call.lane.chunk(call, part.body)
        call.lane.flush()
        self.under_way[batch] = 0
        await call.lane.drained()

    def _whole(self, batch: Batch, parts: list[Tensors]) -> Answer:
        if not parts:
            raise ValueError("it yielded nothing")
        return self._encoded(batch, joined(parts))

    def _encoded(self, batch: Batch, outputs: Tensors) -> Answer:
        [encoded] = batch.encode(self.codec, outputs)
        return encoded if isinstance(encoded, Answer) else Answer(encoded, None)
