"""Exchanges whose route does more than divide by weight: stages before a replica is asked, and endings after."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.frames import NO_JSON_LENGTH
from nstarx.errors import NStarXError
from router.arm import Arm
from router.cached import PASSED
from router.exchange import CLIENT_CLOSED_REQUEST, MILLISECOND, Exchange, clock
from router.flights import Follow, Lead
from router.head import Head
from router.table import Target
from router.tries import NEVER, Tries

if TYPE_CHECKING:
    from router.caching import Caching
    from router.protocol import InferenceProtocol
    from router.tracing import Traced

Stage = Callable[["Journey"], bool]
"""Something that happens to a request before it is sent. True when it may go on at once; False when it has been
answered, or waits and will be told to `proceed`."""
Ending = Callable[["Journey", int, int, int, bytes], None]
"""Something that happens after the client has its answer: told the answer's status, flags, length of JSON, and body,
which is empty where the gateway itself has answered with an error. Streams end without. It must not raise."""


class Journey(Tries):
    """One request on its way through the stages of its route."""

    __slots__ = ("follow", "held", "lead", "rule", "stage")

    stage: int
    """How many stages lie behind."""
    rule: str | None
    """The rule that decided, if one did."""
    held: Arm | None
    """The arm that was chosen, while the cache answers in its place."""
    lead: Lead | None
    """The duty to tell the cache how this ends; others may wait for it."""
    follow: "Follow[Journey] | None"
    """The wait for an answer to the same question."""

    def __init__(
        self,
        connection: "InferenceProtocol",
        target: Target | None,
        head: Head,
        keep_alive: bool,
        request_id: bytes = b"",
    ) -> None:
        Exchange.__init__(self, connection, target, head, keep_alive, request_id)
        self.stage = 0
        self.key = self.rule = self.held = self.lead = self.follow = self.traced = None
        # Those of its tries, too: a method for them would cost every request more than they do.
        self.promoted = self.gate = self.queue = None
        self.hedges = ()
        self.try_due = NEVER

    def _decide(self, target: Target) -> None:
        if target.endings:
            self._name()
        self.proceed()

    def _name(self) -> None:
        """Others than the client will know it by its id."""
        self.request_id = self.request_id or self.connection.gateway.new_request_id()

    def proceed(self) -> None:
        """Go on with the next stage; after the last one, ask a replica."""
        stages, at = self.target.stages if self.target else (), self.stage
        for stage in stages[at:] if at else stages:
            self.stage = at = at + 1
            if not stage(self):
                return
        self._send()

    def go_on(self) -> None:
        """Proceed after waiting: less time is left."""
        self.wait_ms = max((self.deadline - clock()) // MILLISECOND, 1)
        self.proceed()

    def take(self, arm: Arm) -> None:
        """This version answers."""
        Exchange._take(self, arm)
        self.late = self.due

    def refuse(self, error: NStarXError) -> None:
        """Answer with an error before any version was chosen."""
        self._refuse(error)

    # Traces

    def trace(self, traced: "Traced") -> None:
        """Write down what becomes of it."""
        self._name()
        self.traced = traced

    def _close(self) -> None:
        super()._close()
        if self.streaming:
            self._written_down()

    def _written_down(self, status: int | None = None) -> None:
        """The client has its answer; without a status it is what the last call came to."""
        if self.traced is not None:
            self.traced.answered(self, status)

    # In the place of a replica

    def hold(self, other: Arm) -> None:
        """Another arm stands for the chosen one, which is not asked for now."""
        self.held, self.arm = self.arm, other
        self.held.tally.started -= 1
        other.tally.started += 1

    def resume(self) -> None:
        """The chosen arm is to be asked after all, and its time counts from now."""
        if self.held is None:
            return
        self.arm.tally.started -= 1
        self.started = clock()
        self.wait_ms = max((self.deadline - self.started) // MILLISECOND, 1)
        arm, self.held = self.held, None
        self.take(arm)

    def answer(self, status: int, answer: bytes) -> None:
        """Send a whole answer that no replica has given, and count it for the arm that stands there."""
        self._count(status)
        self._put(answer)
        self._written_down(status)

    def give_up(self, error: NStarXError) -> None:
        """Answer with an error for which no version is to blame."""
        self._count(error.status)
        self._finish_with_error(error)

    def common_headers(self) -> bytes:
        """Header lines of every answer."""
        return self._common_headers()

    # Ends

    def _deliver(self, status: int, flags: int, json: int, body: bytes) -> None:
        if self.hedges:
            self._withdraw_hedges()
        target, lead = self.target, self.lead
        if lead is None or target is None or target.cache is None:
            Exchange._deliver(self, status, flags, json, body)
        else:
            self._deliver_for_all(target.cache, lead, status, flags, json, body)
        if self.traced is not None or (target is not None and target.endings):
            self._end(status, flags, json, body)

    def _finish_with_error(self, error: NStarXError) -> None:
        super()._finish_with_error(error)
        self._end(error.status, 0, NO_JSON_LENGTH, b"")

    def _end(self, status: int, flags: int, json: int, body: bytes) -> None:
        if self.target:
            for ending in self.target.endings:
                ending(self, status, flags, json, body)
        self._written_down(status)

    def _deliver_for_all(self, cache: "Caching", lead: Lead, status: int, flags: int, json: int, body: bytes) -> None:
        """The client's answer first, then those of whoever waits for it."""
        self.lead = None
        answer, turns = cache.settle(self, lead, status, flags, json, body)
        if answer is None:
            self.marks += PASSED
            super()._deliver(status, flags, json, body)
        else:
            self._put(answer)
        cache.carry_out(turns)

    def _write(self, status: int, headers: bytes, body: bytes) -> None:
        lead, self.lead = self.lead, None
        if lead is not None:
            self.marks += PASSED
        super()._write(status, headers, body)
        self._written_down(status)
        if lead is not None and self.target and self.target.cache:
            self.target.cache.failed(lead)

    def _turn_to(self, arm: Arm) -> None:
        """Those who wait for the first version's answer go on without it."""
        lead, self.lead = self.lead, None
        super()._turn_to(arm)
        if lead is not None and self.target and self.target.cache:
            self.target.cache.failed(lead)

    def _ask_anew(self) -> None:
        """What the other version has said before is its own."""
        cache = self.target and self.target.cache
        if not cache or cache(self):
            super()._ask_anew()

    def abandon(self) -> None:
        super().abandon()
        cache = self.target and self.target.cache
        if cache and self.follow is not None:
            cache.leave(self.follow)
            self._count(CLIENT_CLOSED_REQUEST)
        if cache and self.lead is not None:
            cache.abandoned(self.lead)
        self.follow = self.lead = None
        self._written_down(CLIENT_CLOSED_REQUEST)
