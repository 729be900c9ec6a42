"""Who may begin, who waits, and who is told to come back: a version's limit and the queue before it.

Times are nanoseconds on the clock of the requests' deadlines.
"""

from collections.abc import Callable
from math import ceil
from random import random
from typing import Final, Generic, NamedTuple, TypeVar

from nstarx.errors import Unavailable
from nstarx.spec.admission import AdmissionSpec
from router.gradient import GradientLimit
from router.priority_queue import PriorityQueue

E = TypeVar("E")
LONGEST_RETRY_AFTER_S = 30


class AtCapacity(Unavailable):
    """A version has as much as it can take, and as many waiting as may."""

    code = "at_capacity"

    def __init__(self, ref: str, retry_after_s: int) -> None:
        super().__init__(f"{ref} is at its limit and its queue is full; retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Admit(NamedTuple):
    """It may begin at once."""


ADMIT: Final = Admit()


class Queue(NamedTuple, Generic[E]):
    """It waits."""

    ticket: int
    """With which it is withdrawn when its client goes away."""
    expired: list[E]
    """Those who waited until it was too late: to be answered 504."""
    displaced: E | None
    """Somebody of lower priority who had to make room: to be rejected."""


class Reject(NamedTuple, Generic[E]):
    """There is no room for it: 503."""

    retry_after_s: int
    expired: list[E]


class Release(NamedTuple, Generic[E]):
    """Those whose waiting has ended."""

    admitted: list[E]
    """They begin now, in this order."""
    expired: list[E]
    """To be answered 504."""


class Admission(Generic[E]):
    """One version's, in one gateway. What is admitted must `leave` or `drop` in the end.

    Where nobody waits, the cheap way in is `limit.enter()`; it must not be taken past a queue.
    """

    __slots__ = ("limit", "queue", "rejected")

    def __init__(self, spec: AdmissionSpec, now: int, random: Callable[[], float] = random) -> None:
        self.limit = GradientLimit(spec, now, random)
        self.queue = PriorityQueue[E](spec.queue)
        self.rejected = 0

    def arrive(self, entry: E, priority: int, deadline: int, now: int) -> Admit | Queue[E] | Reject[E]:
        """Decide about a request. Priority 1 is the highest, 0 the default."""
        if not self.queue.size and self.limit.enter():
            return ADMIT
        self.limit.pressed = True
        pushed = self.queue.push(entry, priority, deadline, now)
        if pushed.ticket is None:
            self.rejected += 1
            return Reject(self.retry_after_s(), pushed.expired)
        self.rejected += pushed.displaced is not None
        return Queue(pushed.ticket, pushed.expired, pushed.displaced)

    def release(self, now: int) -> Release[E]:
        """Whoever may begin now: to be asked while somebody waits, after every request that ends and every update."""
        if self.limit.measuring:
            # Else a measurement would last until the next update, with few requests let through all the while.
            self.limit.update(now)
        limit, released = self.limit, Release[E]([], [])
        while self.queue.size and limit.in_flight < limit.limit:
            entry, expired = self.queue.pop(now)
            released.expired.extend(expired)
            if entry is not None:
                limit.in_flight += 1
                released.admitted.append(entry)
        return released

    def retry_after_s(self) -> int:
        """When the queue will have gone at the present rate: whole seconds, at least one."""
        wait = (self.queue.size + 1) / self.limit.rate if self.limit.rate else 1.0
        return min(max(ceil(wait), 1), LONGEST_RETRY_AFTER_S)
