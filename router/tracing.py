"""Spans of a gateway's own: the whole way of a request, and each call of a replica on it."""

from time import perf_counter_ns as clock
from typing import TYPE_CHECKING

from cluster.trace_context import TraceContext, pack_place
from cluster.tracing import Attributes, Trace, Tracer

if TYPE_CHECKING:
    from router.journey import Journey
    from router.lanes import Lane


class Traced:
    """A traced request, or a copy of one: what there is to write down about it, and the call that is under way."""

    __slots__ = (
        "_answered", "_call", "_ref", "_replica", "_since", "_started", "_status", "_tracer", "_tries", "trace",
    )  # fmt: skip

    def __init__(self, tracer: Tracer, trace: Trace, started: int) -> None:
        self.trace = trace
        self._tracer = tracer
        self._started = started
        self._call = 0
        """Id of the call's span; 0 while no replica is asked."""
        self._ref = self._replica = ""
        self._since = self._tries = 0
        self._status = 200
        self._answered = False

    def copied(self) -> "Traced":
        """The same request, sent to a shadow once it was answered."""
        return Traced(self._tracer, self.trace, self._started)

    def beside(self) -> "Traced":
        """A further try, beside the call that is under way."""
        other = self.copied()
        other._tries = self._tries + 1
        return other

    def take_over(self, other: "Traced") -> None:
        """A try beside the call has become the call."""
        if self._call:
            self.came_to(UNANSWERED)
        self._call, other._call = other._call, 0
        self._ref, self._replica, self._since, self._tries = other._ref, other._replica, other._since, other._tries

    def asked(self, lane: "Lane") -> bytes:
        """A replica is asked: the place in the trace that it is told."""
        if self._call:
            self.came_to(UNANSWERED)
        self._call, self._since = self._tracer.new_id(), clock()
        self._ref, self._replica = lane.record.ref, lane.record.replica
        return pack_place(TraceContext(self.trace.trace_id, self._call, self.trace.flags))

    def came_to(self, status: int) -> None:
        """The call has ended, if one was under way."""
        self._status = status
        if self._call:
            tracer, id, self._call = self._tracer, self._call, 0
            tracer.called(self.trace, id, self._since, clock(), self._ref, self._replica, status, self._tries)
            self._tries += 1

    def answered(self, journey: "Journey", status: int | None = None) -> None:
        """The client has its answer, if it had none before; without a status it is what the last call came to."""
        if self._answered:
            return
        self._answered = True
        route = journey.target.route if journey.target else None
        path = f"{route.path_prefix}/v2/models/{route.model}/infer" if route else ""
        status = self._status if status is None else status
        self._tracer.answered(self.trace, self._started, clock(), path, status, _about(journey))


UNANSWERED = 503
"""What a try came to whose replica died, or had no room."""


class Tracing:
    """The stage at which it is decided whether a request is traced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, journey: "Journey") -> bool:
        trace = self._tracer.begin(journey.facts.headers)
        if trace is not None:
            journey.trace(Traced(self._tracer, trace, journey.started))
        return True


def _about(journey: "Journey") -> Attributes:
    """What a journey knows of itself."""
    about: Attributes = {"nstarx.request_id": journey.request_id.decode("latin-1")}
    arm = getattr(journey, "arm", None)
    if arm is not None:
        about |= {"nstarx.version": arm.ref, "nstarx.role": arm.role}
    if journey.target:
        about["nstarx.route"] = journey.target.route.name
    if journey.rule:
        about["nstarx.rule"] = journey.rule
    return about
