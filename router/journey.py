"""Exchanges whose route does more than divide by weight: stages before a replica is asked, and endings after."""

from collections.abc import Callable

from router.arm import Arm
from router.exchange import Exchange
from router.facts import Facts
from router.table import Target

Stage = Callable[["Journey"], bool]
"""Something that happens to a request before it is sent. True when it may go on at once; False when it has been
answered, or waits and will be told to `proceed`."""
Ending = Callable[["Journey", int, int, int, bytes], None]
"""Something that happens after the client has its answer: told the answer's status, flags, length of JSON, and body."""


class Journey(Exchange):
    """One request on its way through the stages of its route."""

    __slots__ = ("facts", "key", "rule", "stage")

    facts: Facts
    """What rules, keys and limits look at."""
    stage: int
    """How many stages lie behind."""
    key: bytes | None
    """What the request was assigned by, if by a key."""
    rule: str | None
    """The rule that decided, if one did."""

    def _decide(self, target: Target) -> None:
        self.stage = 0
        self.key = self.rule = None
        self.proceed()

    def proceed(self) -> None:
        """Go on with the next stage; after the last one, ask a replica."""
        stages = self.target.stages if self.target else ()
        while self.stage < len(stages):
            stage = stages[self.stage]
            self.stage += 1
            if not stage(self):
                return
        self._send()

    def take(self, arm: Arm) -> None:
        """This version answers."""
        self._take(arm)

    def _deliver(self, status: int, flags: int, json: int, body: bytes) -> None:
        super()._deliver(status, flags, json, body)
        if self.target:
            for ending in self.target.endings:
                ending(self, status, flags, json, body)
