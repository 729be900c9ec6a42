"""Forming batches: what waits is decoded, and sorted into groups that can run as one."""

from collections.abc import Hashable

from nstarx.errors import PayloadTooLarge
from serving.batch import Batch, PlainBatch
from serving.bodies import COMPRESSED, LARGE, Decoded, LargeBodies, decoded
from serving.call import Call
from serving.codec import Codec, InferRequest, without_id
from serving.counters import Counters
from serving.queue import Queue
from serving.responder import Responder
from serving.runs import Clock

NUMBERED = b'{"id":'
"""How a body begins whose client numbers its requests, where the id can be set apart (serving.codec.ids)."""


class Former:
    """Makes batches of calls. One bad body fails alone, and one large body is decoded apart."""

    def __init__(
        self,
        codec: Codec,
        queue: Queue,
        responder: Responder,
        counters: Counters,
        large: LargeBodies,
        clock: Clock,
    ) -> None:
        self._codec = codec
        self._queue = queue
        self._responder = responder
        self._counters = counters
        self._large = large
        self._clock = clock

    def form(self, calls: list[Call], most: int, now: int, maybe_plain: bool = True) -> list[Batch]:
        """The batches, each of at most so many rows, of those calls for which somebody waits; order is kept.

        `maybe_plain` is False for calls of which it is known that they can't be decoded in one go.
        """
        calls = self._queue.wanted(calls, now)
        return (maybe_plain and self._plain(calls, most, now)) or self._groups(calls, most, now)

    def join(self, call: Call, result: Decoded, began: int) -> None:
        """A body that was decoded apart is ready to run, or refused."""
        self._queue.apart.discard(call)
        now = self._clock()
        if isinstance(result, Exception):
            self._responder.refuse(call, result, began, now)
        else:
            self._counters.waited(began - call.arrived, 1)
            if self._in_time(call, result, now):
                self._queue.formed.append(Batch(call, result, large=True))

    def _plain(self, calls: list[Call], most: int, now: int) -> list[Batch]:
        """Batches of calls that differ in their numbers alone: the common case, in which little is done per call."""
        bodies = [call.payload for call in calls if call.json_length is None and not call.flags & COMPRESSED]
        if not bodies or len(bodies) < len(calls) or sum(map(len, bodies)) > LARGE:
            return []
        # Where the first has no id, those that have one are in another frame.
        if bodies[0].startswith(NUMBERED):
            bodies = [_without_id(call) for call in calls]
        plain = self._codec.decode_plain(bodies)
        if plain is None:
            return []
        self._count(calls, now)
        batch = PlainBatch(calls, *plain)
        return [batch] if batch.rows <= most or len(calls) == 1 else [*batch.cut(max(most // batch.rows_each, 1))]

    def _count(self, calls: list[Call], now: int) -> None:
        waited, arrived = self._counters.waited, calls[0].arrived
        if calls[-1].arrived == arrived:  # They are in the order of their arrival.
            waited(now - arrived, len(calls))
        else:
            for call in calls:
                waited(now - call.arrived, 1)

    def _groups(self, calls: list[Call], most: int, now: int) -> list[Batch]:
        batches: list[Batch] = []
        groups: dict[Hashable, Batch] = {}
        for call in calls:
            request = self._decode(call, now)
            if request is None:
                continue
            batch = groups.get(request.group)
            if batch is not None and batch.rows + request.rows <= most:
                batch.add(call, request)
                continue
            batch = Batch(call, request)
            batches.append(batch)
            if request.group is not None:
                groups[request.group] = batch
        return batches

    def _decode(self, call: Call, now: int) -> InferRequest | None:
        """The request, if it is ready to run; it is decoded apart otherwise, or has its end."""
        try:
            request = decoded(self._codec, call, LARGE)
        except PayloadTooLarge:
            self._queue.apart.add(call)
            self._large.submit(call, now)
            return None
        except Exception as error:
            self._responder.refuse(call, error, now, self._clock())
            return None
        self._counters.waited(now - call.arrived, 1)
        return request if request.timeout_s is None or self._in_time(call, request, now) else None

    def _in_time(self, call: Call, request: InferRequest, now: int) -> bool:
        """Whether the request's own deadline, of which only its body tells, has not passed."""
        if request.timeout_s is None:
            return True
        own = call.arrived + int(request.timeout_s * 1e9)
        call.expires = min(call.expires or own, own)
        return self._queue.is_wanted(call, now)


def _without_id(call: Call) -> bytes:
    """The call's body without its id, which stays with the call."""
    body, call.tag = without_id(call.payload)
    return body
