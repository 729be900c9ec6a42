"""What waits for a run: calls as they came, the batches formed of them, and who has gone away meanwhile."""

from collections import deque
from collections.abc import Collection, Iterable
from itertools import chain

from serving.batch import Batch
from serving.call import Call, Caller
from serving.responder import Responder


class Queue:
    """Calls in the order of their arrival. It knows no bound of its own: who adds asks for the length first."""

    def __init__(self, responder: Responder) -> None:
        self.calls: deque[Call] = deque()
        """Not yet decoded."""
        self.formed: deque[Batch] = deque()
        """Decoded, and first to run."""
        self.apart: set[Call] = set()
        """Being decoded in a thread."""
        self._responder = responder
        self._withdrawn: dict[tuple[Caller, int], int] = {}
        """When each call was withdrawn, so that a later one with its id is not taken for it."""

    def __len__(self) -> int:
        """Calls that wait, in whichever state."""
        formed = sum([len(batch.calls) for batch in self.formed]) if self.formed else 0
        return len(self.calls) + len(self.apart) + formed

    def take(self, most: int) -> list[Call]:
        """The oldest calls, up to so many."""
        calls = self.calls
        if len(calls) > most:
            return [calls.popleft() for _ in range(most)]
        taken = list(calls)
        calls.clear()
        return taken

    def pop_formed(self, now: int) -> Batch | None:
        """The oldest batch, less the calls for which nobody waits any more; None where none is left of it."""
        batch = self.formed.popleft()
        wanted = self.wanted(batch.calls, now)
        if len(wanted) == len(batch.calls):
            return batch
        return batch.without(set(batch.calls).difference(wanted)) if wanted else None

    def repeat(self, batches: Collection[Batch]) -> None:
        """Batches to run before everything else, in this order."""
        self.formed.extendleft(reversed(list(batches)))

    def drop(self) -> None:
        """Nothing of what waits will run."""
        self._responder.forget(len(self))
        self.calls.clear()
        self.formed.clear()
        self.apart.clear()

    # Who has gone away

    def withdraw(self, lane: Caller, id: int, now: int, most: int) -> None:
        """Nobody waits for this call any more, if it is here at all; at most so many of them are remembered."""
        if not (self.calls or self.formed or self.apart):
            return
        if len(self._withdrawn) >= most:
            waiting = {(call.lane, call.id) for call in self._all()}
            self._withdrawn = {key: when for key, when in self._withdrawn.items() if key in waiting}
        self._withdrawn[lane, id] = now

    def forget_withdrawals(self) -> None:
        """Nothing waits that they could be meant for."""
        if self._withdrawn and not self.apart:
            self._withdrawn.clear()

    def wanted(self, calls: list[Call], now: int) -> list[Call]:
        """Those for which somebody waits; the others have their end."""
        if not self._withdrawn:
            for call in calls:
                if call.lane.closed or (call.expires and now >= call.expires):
                    break
            else:
                return calls
        return [call for call in calls if self.is_wanted(call, now)]

    def is_wanted(self, call: Call, now: int) -> bool:
        """Whether somebody waits for this call; it has its end otherwise."""
        if call.lane.closed or (
            self._withdrawn and self._withdrawn.pop((call.lane, call.id), call.arrived - 1) >= call.arrived
        ):
            self._responder.forget(1)
            return False
        if call.expires and now >= call.expires:
            self._responder.expire(call)
            return False
        return True

    def _all(self) -> Iterable[Call]:
        return chain(self.calls, self.apart, *[batch.calls for batch in self.formed])
