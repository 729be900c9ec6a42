"""Spans of what a replica does with the calls that gateways trace: the whole, the wait and the run."""

import time
from collections.abc import Callable, Iterable

from cluster.trace_context import TraceContext
from cluster.tracing import Attributes, Kind, Span, Trace, Tracer
from serving.call import Call, Caller
from serving.counters import Times


class Traces:
    """The traced calls that a replica has in hand.

    Without a tracer, calls leave no spans here, whatever gateways ask.
    """

    def __init__(
        self,
        tracer: Tracer | None = None,
        ref: str = "",
        replica: str = "",
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.open: dict[Call, TraceContext] = {}
        """Empty most of the time, so that to ask it costs the others next to nothing."""
        self._tracer = tracer
        self._ref = ref
        self._replica = replica
        self._clock = clock

    def begin(self, call: Call, place: TraceContext) -> None:
        """A traced call has arrived; the gateway's call of this replica is its place in the trace."""
        if self._tracer:
            self.open[call] = place

    def ran(self, calls: Iterable[Call], times: Times) -> None:
        """A run has been answered: of these calls, some may be traced."""
        began, ready, inferred, done = times
        together = list(calls)
        for call in together:
            whole = self._whole(call, 200, done, {"nstarx.batch_size": len(together)})
            if whole:
                self._part(whole, "wait", call.arrived, began)
                self._part(whole, "run", ready, inferred)

    def failed(self, call: Call, status: int, began: int, now: int) -> None:
        """A call was answered with an error after its turn came at `began`."""
        whole = self._whole(call, status, now)
        if whole:
            self._part(whole, "wait", call.arrived, began)

    def turned_away(self, call: Call, status: int) -> None:
        """A call was not run: too late, or there was no room."""
        if call in self.open:
            self._whole(call, status, self._clock())

    def forget(self, lane: Caller, id: int | None = None) -> None:
        """Nobody waits for this call any more, or for any of a lane."""
        for call in [call for call in self.open if call.lane is lane and id in (None, call.id)]:
            del self.open[call]

    def _whole(self, call: Call, status: int, ended: int, more: Attributes | None = None) -> Span | None:
        place = self.open.pop(call, None)
        if place is None or self._tracer is None:
            return None
        known: Attributes = {"nstarx.version": self._ref, "nstarx.replica": self._replica, "nstarx.status": status}
        trace = Trace(place.trace_id, self._tracer.new_id(), place.span_id, place.flags, b"")
        span = Span(
            trace, trace.span_id, place.span_id, f"infer {self._ref}", Kind.SERVER, call.arrived, ended,
            {**known, **(more or {})}, status >= 500,
        )  # fmt: skip
        self._tracer.record(span)
        return span

    def _part(self, whole: Span, name: str, started: int, ended: int) -> None:
        if self._tracer:
            id = self._tracer.new_id()
            self._tracer.record(Span(whole.trace, id, whole.id, name, Kind.INTERNAL, started, ended, {}, False))
