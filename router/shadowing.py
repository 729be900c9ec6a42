"""Copies of requests for shadows: sent once the client has its answer, and compared with it.

Nothing here is on a request's way. When an answer has been written, a mirror takes note of it; the copy leaves in a
later turn of the event loop, has a deadline and a budget of its own, and is what is left out first when there is much
to do. What became of it is compared with what the client got, in a bounded part of the loop's time.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from judging.answers import Answer
from judging.comparison import compare_statuses
from judging.shadow_tally import Drop
from nstarx.spec.route import RouteSpec
from router.comparing import compare_small
from router.lanes import Backend
from router.mirror import Answered, Copy, Mirror
from router.pressure import Pressure
from router.tally import Tally
from router.time_share import TimeShare

log = logging.getLogger("nstarx.shadows")

MOST_HELD = 64 << 20
"""Bytes of requests and answers that all copies of one gateway may hold."""
COMPARING_SHARE = 0.05
"""Part of the event loop's time that comparing may take; pairs beyond it are counted by status alone."""
COMPARING_BURST_NS = 5_000_000
PILE = 8
"""Of so many pairs that wait, one more is compared in a turn of the event loop."""
LONGEST_TURN_NS = 10_000_000
"""A turn of the event loop that takes longer says that there is more to do than time: its copies are left out."""

Resets = Mapping[str, Mapping[str, int]]
"""Route to version to how often its shadow was reset."""
News = tuple[Mirror, tuple[object, ...], dict[str, Any]]
"""A shadow, by what its state is known, and all that it has counted, for the wire."""

clock = time.perf_counter_ns


class Shadowing:
    """All shadows of one gateway: what they may take of it, and the work that they leave for later turns."""

    def __init__(self) -> None:
        self.mirrors: dict[tuple[str, str], Mirror] = {}
        """By route and version."""
        self.pressure = Pressure()
        self.budget = TimeShare(COMPARING_SHARE, COMPARING_BURST_NS)
        self.held = 0
        """Bytes of requests and answers that copies keep."""
        self._waiting: dict[Copy, None] = {}
        """Copies sent, and not yet answered."""
        self._answered: list[Answered] = []
        """Requests to be looked at in the next turn."""
        self._pairs: deque[tuple[Copy, Answer, int]] = deque()
        self._comparing = False
        """More pairs are to be compared in the next turn."""
        self._woken = 0
        """When the first of these was answered; 0 when there are none."""

    def follow(
        self,
        routes: Iterable[RouteSpec],
        resets: Resets,
        backend: Callable[[str], Backend],
        calls: Callable[[str, str, str], Tally],
    ) -> None:
        """Have exactly the shadows that routes name; what one has counted stays as long as it means the same."""
        before, self.mirrors = self.mirrors, {}
        for route in routes:
            for spec in route.shadows:
                key = route.name, spec.version
                mirror = before.get(key) or Mirror(self, *key, backend(spec.version), calls(*key, "shadow"))
                mirror.follow(route, spec, resets.get(route.name, {}).get(spec.version, 0))
                self.mirrors[key] = mirror

    def of(self, route: RouteSpec) -> tuple[Mirror, ...]:
        """The shadows of a route."""
        return tuple(self.mirrors[route.name, spec.version] for spec in route.shadows)

    # Work, left for later turns (Sender)

    def note(self, answered: Answered) -> None:
        self._answered.append(answered)
        if not self._woken:
            self._woken = answered.at
            asyncio.get_running_loop().call_soon(self._turn)

    def left_out(self, size: int) -> Drop | None:
        if self.pressure.busy:
            return Drop.busy
        return Drop.memory if self.held + size > MOST_HELD else None

    def ended(self, copy: Copy, answer: Answer, spent: int) -> None:
        self._waiting.pop(copy, None)
        copy.mirror.in_flight -= 1
        self._pairs.append((copy, answer, spent))
        if not self._comparing:
            self._comparing = True
            asyncio.get_running_loop().call_soon(self._compare)

    def _turn(self) -> None:
        """What was written to clients in the turn before has left; whatever is done now delays only what comes."""
        now, woken, self._woken = clock(), self._woken, 0
        late = now - woken > LONGEST_TURN_NS
        noted, self._answered = self._answered, []
        for answered in noted:
            try:
                self._copy(answered, now, late)
            except Exception:
                log.exception("a request could not be copied", extra={"action": "copy_lost"})

    def _copy(self, answered: Answered, now: int, late: bool) -> None:
        copy = answered.mirror.copy(answered, late)
        if copy is not None and answered.mirror.send(copy, now):
            self.held += copy.held
            self._waiting[copy] = None

    def _settle(self, copy: Copy, answer: Answer, spent: int) -> None:
        """Count a pair, compared as far as the budget goes."""
        self.held -= copy.held
        began = clock()
        spec, _, tally = copy.trial
        try:
            if copy.comparable() and self.budget.left(began):
                found = compare_small(copy.primary, answer, spec)
            else:
                found = compare_statuses(copy.primary.status, answer.status)
            tally.add(copy.pair(answer, spent), found, spec)
        except Exception:
            log.exception("a pair could not be compared", extra={"action": "pair_lost"})
        self.budget.spend(clock() - began)

    def sweep(self, now: int) -> None:
        """Every 20 ms: end copies that are late. `now` is on the clock of `time.perf_counter_ns`."""
        for copy in [copy for copy in self._waiting if copy.due <= now]:
            copy.expire()

    def _compare(self) -> None:
        """One pair a turn, so that whoever comes meanwhile waits for one at most; more while pairs pile up."""
        for _ in range(1 + len(self._pairs) // PILE):
            self._settle(*self._pairs.popleft())
        self._comparing = bool(self._pairs)
        if self._comparing:
            asyncio.get_running_loop().call_soon(self._compare)

    # What the coordinator hears

    def counts(self) -> list[dict[str, Any]]:
        """Of each shadow, what it has counted, in short."""
        return [mirror.counts() for mirror in self.mirrors.values()]

    def news(self) -> list[News]:
        """Of each shadow that has seen anything since it was `told`, all that it has counted."""
        found: list[News] = []
        for mirror in self.mirrors.values():
            _, trial, tally = mirror.trial
            state = (trial, tally.sampled, tally.dropped, sum(tally.outcomes.values()))
            if tally.sampled and state != mirror.told:
                document = {"route": mirror.route, "ref": mirror.ref, "trial": trial}
                found.append((mirror, state, document | {"tally": orjson.dumps(tally.document())}))
        return found

    def told(self, news: Iterable[News]) -> None:
        """The coordinator knows this."""
        for mirror, state, _ in news:
            mirror.told = state

    def forget_told(self) -> None:
        """The coordinator is a new one, and knows nothing."""
        for mirror in self.mirrors.values():
            mirror.told = ()
