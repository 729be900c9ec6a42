"""The stage before a version that lets in as much as the version takes, and lets the others wait or come back later."""

from asyncio import get_running_loop
from functools import lru_cache
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from nstarx.errors import DeadlineExceeded, InvalidRequest
from nstarx.spec.admission import AdmissionSpec
from router.admission import Admission, Admit, AtCapacity, Reject

if TYPE_CHECKING:
    from router.journey import Journey

PRIORITY = b"x-nstarx-priority"
TELLING = frozenset({200, 504})
"""How calls end whose time says something about a version's latency: answered, or not before its deadline."""


class Gate:
    """One version's, for one route in this gateway."""

    def __init__(self, ref: str, spec: AdmissionSpec, now: int) -> None:
        """`now` is nanoseconds on the clock of deadlines."""
        self.ref = ref
        self.spec = spec
        self._admission: Admission[Journey] = Admission(spec, now)
        self.limit, self.queue = self._admission.limit, self._admission.queue
        self.levels = spec.queue.priority_levels
        self._opening = False

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.queue.size

    def admit(self, journey: "Journey") -> bool:
        """True when a request may go on at once; else it waits, or has been answered."""
        given = journey.facts.headers.get(PRIORITY) if self.levels > 1 else None
        try:
            level = 0 if given is None else priority(given)
        except InvalidRequest as error:
            journey.give_up(error)
            return False
        if not self.queue.size and self.limit.enter():
            journey.gate = self
            return True
        self._wait(journey, level)
        return False

    def _wait(self, journey: "Journey", level: int) -> None:
        """There is no room: wait, if there is room for that."""
        decision = self._admission.arrive(journey, level, journey.deadline, perf_counter_ns())
        assert not isinstance(decision, Admit)
        if isinstance(decision, Reject):
            self._reject(journey)
        else:
            journey.queue, journey.ticket = self, decision.ticket
            if decision.displaced is not None:
                self._reject(decision.displaced)
        self._expire(decision.expired)

    def enter(self) -> None:
        """Count a request that comes past the queue: a retry, or a rescue. Their budgets bound them."""
        self.limit.in_flight += 1

    def leave(self, since: int, now: int, status: int) -> None:
        """A call that was let in, and sent at `since`, has ended."""
        if status in TELLING:
            self.limit.leave(since, now)
        else:
            self.limit.drop()
        if self.queue.size and not self._opening:
            # After whatever the loop has in hand: the client whose call has ended gets its answer first.
            self._opening = True
            get_running_loop().call_soon(self._open)

    def withdraw(self, ticket: int) -> None:
        """Somebody does not want to wait any more."""
        self.queue.withdraw(ticket)

    def sweep(self, now: int) -> None:
        """To be called every 20 ms or so."""
        self.limit.update(now)
        if self.queue.size:
            self._expire(self.queue.clear(now))
            self._open()

    def reading(self) -> dict[str, Any]:
        """A copy for the wire."""
        limit = self.limit
        return {
            "ref": self.ref,
            "limit": limit.limit,
            "in_flight": limit.in_flight,
            "waiting": self.queue.size,
            "rejected": self._admission.rejected,
            "min_rtt_s": limit.min_rtt_s,
        }

    def _open(self) -> None:
        """Whoever may begin now begins."""
        self._opening = False
        released = self._admission.release(perf_counter_ns())
        self._expire(released.expired)
        for journey in released.admitted:
            journey.gate, journey.queue = self, None
            journey.go_on()

    def _expire(self, journeys: "list[Journey]") -> None:
        for journey in journeys:
            journey.queue = None
            journey.fail(DeadlineExceeded(journey.timeout_s or 0.0))

    def _reject(self, journey: "Journey") -> None:
        journey.queue = None
        journey.fail(AtCapacity(self.ref, self._admission.retry_after_s()))


def admit(journey: "Journey") -> bool:
    """The stage."""
    gate = journey.arm.gate
    if gate is None:
        return True
    limit = gate.limit
    if gate.levels == 1 and not gate.queue.size and limit.in_flight < limit.limit:
        # The usual case, at half of the price.
        limit.in_flight += 1
        journey.gate = gate
        return True
    return gate.admit(journey)


@lru_cache(maxsize=256)
def priority(given: bytes) -> int:
    """The level that a request asks for. Raises InvalidRequest."""
    if not given.isdigit() or len(given) > 3:
        name = PRIORITY.decode()
        raise InvalidRequest(f"header {name} is '{given.decode('latin-1')}'; it must be a number, and 1 is the highest")
    return int(given)
