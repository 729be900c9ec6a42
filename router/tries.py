"""Exchanges that choose replicas by more than load, give each its time, ask a further one beside a slow one, and are
let into a version through its gate."""

from typing import TYPE_CHECKING

from judging.windows import INVALID_OUTPUT
from nstarx.errors import DeadlineExceeded, NStarXError
from router.exchange import CLIENT_CLOSED_REQUEST, Exchange, clock
from router.facts import Facts
from router.hedging import Hedge
from router.lanes import Lane

if TYPE_CHECKING:
    from router.admitting import Gate
    from router.tracing import Traced

NEVER = 1 << 63
OK = 200
HEDGED = b"x-nstarx-hedged: true\r\n"


class TryTooLong(DeadlineExceeded):
    """No replica answered within the time of one try, and there may be no further one."""

    def __init__(self, seconds: float) -> None:
        NStarXError.__init__(self, f"no replica answered within {seconds:g} s, the time that this route gives one try")


class Tries(Exchange):
    """One request's way among the replicas of its version. Journeys fill in what it begins with."""

    __slots__ = (
        "asked", "facts", "gate", "hedge_due", "hedges", "key", "late", "promoted", "queue", "ticket", "traced",
        "try_due",
    )  # fmt: skip

    asked: int
    """When the first replica was asked, where others may be asked beside it."""
    facts: Facts
    """What rules, keys and limits look at."""
    key: bytes | None
    """What the request was assigned by, if by a key."""
    late: int
    """When something has to happen, whatever becomes of the present try: the deadline, or when a rescue is due."""
    try_due: int
    """When the present try has taken too long."""
    hedge_due: int
    """When a further replica is to be asked beside the present one."""
    hedges: tuple[Hedge, ...]
    """Replicas that were asked beside the present one."""
    promoted: Hedge | None
    """The one of them that is the present one, since the first has failed or was slower."""
    gate: "Gate | None"
    """Where it was let in, and must be let out."""
    queue: "Gate | None"
    """Where it waits to be let in."""
    ticket: int
    traced: "Traced | None"
    """What is written down about it, if it is traced."""

    # Replicas

    def _wait_until(self, due: int) -> None:
        self.late = due
        self.due = min(due, self.try_due)

    def _send(self) -> None:
        balancer, target = self.arm.balancer, self.target
        find = target.hash_key if target else None
        lane = balancer.pick() if find is None else balancer.pick_for(find(self))
        if lane is None:
            self._look_elsewhere()
        else:
            self._ask(lane)

    def _ask(self, lane: Lane) -> None:
        arm = self.arm
        if self.gate is not arm.gate:
            self._change_gate()
        self.promoted = None
        self.lane = lane
        traced = self.traced
        self.id = lane.send(self) if traced is None else lane.send(self, traced.asked(lane))
        self.sent = now = clock()
        target, hedging = self.target, arm.hedging
        if target is not None and target.try_ns is not None:
            self._give_time(now)
        if hedging is not None:
            self.asked = now
            self.hedge_due = hedging.watch(self, now)

    def _give_time(self, since: int) -> None:
        """A try that began then may take as long as the route says."""
        if self.target is not None and self.target.try_ns is not None:
            self.try_due = since + self.target.try_ns
            self.due = min(self.late, self.try_due)

    def expire(self) -> None:
        if self.due >= self.late:
            super().expire()
        elif self.streaming:
            # It has begun in time.
            self.try_due, self.due = NEVER, self.late
        else:
            self._withdraw_present()
            self._fail(TryTooLong((self.try_due - self.sent) / 1e9))

    def _wants_retry(self, status: int) -> bool:
        late = self.try_due <= clock() and self._repeats("per_try_timeout")
        return late or super()._wants_retry(status)

    # Hedges

    def hedge(self, due: int) -> None:
        """Ask a further replica beside the present one, if the answer is still wanted, and was expected by now."""
        hedging, lane = self.arm.hedging, self.lane
        if due != self.hedge_due or self.response_complete or self.disconnected or lane is None or hedging is None:
            return
        other = self.arm.balancer.pick_other((lane, *[hedge.lane for hedge in self.hedges]))
        if other is None or not hedging.take():
            return
        if HEDGED not in self.marks:
            self.marks += HEDGED
        now = clock()
        self.hedges += (Hedge(self, other, now),)
        more = len(self.hedges) < hedging.spec.max_extra
        self.hedge_due = hedging.watch(self, now) if more else 0

    def prefers(self, hedge: Hedge, good: bool) -> bool:
        """Whether what a hedge has come to is what the call comes to. One that failed is forgotten beside others."""
        if hedge is self.promoted:
            return True
        if good:
            self._withdraw_present()
            if self.traced is not None:
                self.traced.came_to(CLIENT_CLOSED_REQUEST)
            self.arm.tally.hedges_won += 1
            self._promote(hedge)
        else:
            self.hedges = tuple([other for other in self.hedges if other is not hedge])
        return good

    def _promote(self, hedge: Hedge) -> None:
        self.promoted = hedge
        if self.traced is not None and hedge.traced is not None:
            self.traced.take_over(hedge.traced)
        self.lane, self.id, self.sent = hedge.lane, hedge.id, hedge.sent
        self.hedges = tuple([other for other in self.hedges if other is not hedge])
        self._give_time(hedge.sent)

    def _withdraw_present(self) -> None:
        super()._withdraw()

    def _withdraw(self) -> None:
        self._withdraw_hedges()
        super()._withdraw()

    def _withdraw_hedges(self) -> None:
        hedges, self.hedges = self.hedges, ()
        for hedge in hedges:
            hedge.lane.cancel(hedge.id)
            hedge.forgotten(CLIENT_CLOSED_REQUEST)
            self._given_up(hedge.lane, hedge.sent)

    def on_overloaded(self) -> None:
        if self.hedges:
            self._promote(self.hedges[0])
        else:
            super().on_overloaded()

    def on_lane_lost(self) -> None:
        if self.hedges:
            self._mourn()
            self._promote(self.hedges[0])
        else:
            super().on_lane_lost()

    def _recovers(self, status: int) -> bool:
        """A hedge goes on as the call's own try, where there is one."""
        if not self.hedges or self.streaming or self.disconnected:
            return super()._recovers(status)
        self.arm.tally.invalid += status == INVALID_OUTPUT
        self._tell(self.arm, status)
        self.arm.tally.started += 1
        self._promote(self.hedges[0])
        return True

    # The gate

    def fail(self, error: NStarXError) -> None:
        """Answer with an error of the present version, unless somebody answers in its place."""
        self._fail(error)

    def _change_gate(self) -> None:
        """A retry, or another version: not through the door, but counted."""
        if self.gate is not None:
            self.gate.leave(self.sent, self.sent, CLIENT_CLOSED_REQUEST)
        self.gate = self.arm.gate
        if self.gate is not None:
            self.gate.enter()

    def _count(self, status: int) -> int:
        now = Exchange._count(self, status)
        if self.traced is not None:
            self.traced.came_to(status)
        hedging = self.arm.hedging
        if hedging is not None and status == OK and self.lane is not None:
            hedging.answered(now - self.asked)
        gate = self.gate
        if gate is not None:
            self.gate = None
            gate.leave(self.sent, now, status)
        return now

    def abandon(self) -> None:
        queue, self.queue = self.queue, None
        self._withdraw_hedges()
        super().abandon()
        if queue is not None:
            queue.withdraw(self.ticket)
            self._count(CLIENT_CLOSED_REQUEST)
