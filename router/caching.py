"""The cache as requests of one route meet it: a stage that answers what is known, and the ends of those it lets pass.

    journey.lead        this request is run for all that ask the same; how it ends is told to `settle` or `failed`
    journey.follow      this request waits for another's answer; its turn comes by `carry_out`

What the cache answers is counted for the version in the role "cache", so that nobody judges a version by it. What a
rescuer answers is its own: a rescued request asks the cache anew, for the version that rescues it.
"""

import logging
from collections.abc import Callable
from time import perf_counter_ns as clock
from typing import TYPE_CHECKING

from nstarx.errors import DeadlineExceeded
from nstarx.spec.cache import CacheSpec
from nstarx.spec.key import KeySpec
from nstarx.spec.route import RouteSpec
from router.arm import Arm
from router.cache import RouteCache
from router.cached import HIT, PASSED, SHARED, Hit, render, render_new
from router.conditions import matches
from router.flights import Follow, Lead, Turn

if TYPE_CHECKING:
    from router.journey import Journey

log = logging.getLogger("nstarx.gateway")

ROLE = "cache"
"""In the role of which a version's kept answers are counted."""

Turns = list[Turn["Journey"]]


class Caching:
    """One route's cache in one gateway; its stage is the call."""

    def __init__(self, spec: CacheSpec, route: str, selecting: tuple[str, ...], arm_of: Callable[[str], Arm]) -> None:
        """`arm_of` makes the arm that stands for a version's kept answers."""
        self.spec = spec
        self.selecting = selecting
        self.cache = RouteCache["Journey"](spec, route, selecting)
        self._arm_of = arm_of
        self._arms: dict[str, Arm] = {}

    def __call__(self, journey: "Journey") -> bool:
        """The stage. False when the request is answered, or waits."""
        cache, arm = self.cache, journey.arm
        found = cache.look_up(
            arm.ref,
            journey.body,
            journey.json,
            journey.flags,
            cache.terms(journey.facts.headers),
            journey,
            journey.deadline,
            clock(),
        )
        if isinstance(found, Lead):
            _lead(journey, found)
            return True
        journey.hold(self._arm(arm.ref))
        if isinstance(found, Hit):
            _serve(journey, found, HIT)
        else:
            journey.follow = found
        return False

    # Ends of those that lead

    def settle(
        self, journey: "Journey", lead: Lead, status: int, flags: int, json: int, body: bytes
    ) -> tuple[bytes | None, Turns]:
        """What a leader's client gets, None for the replica's answer as it came; and what becomes of those who wait."""
        now = clock()
        if status != 200:
            return None, self.cache.failed(lead, now)
        hit, turns = self.cache.answered(lead, journey.arm.ref, flags, json, body, now)
        if hit is None:
            return None, turns
        return render_new(hit, journey.common_headers(), journey.arm.role_line, _condition(journey)), turns

    def failed(self, lead: Lead) -> None:
        """The request that led got no answer that others may have."""
        self.carry_out(self.cache.failed(lead, clock()))

    def abandoned(self, lead: Lead) -> None:
        """The client of the request that led went away."""
        self.carry_out(self.cache.abandoned(lead, clock()))

    # Ends of those that wait

    def leave(self, follow: "Follow[Journey]") -> None:
        """The client of a request that waited went away."""
        self.cache.leave(follow)

    def sweep(self, now: int) -> None:
        """Every few milliseconds: nobody waits too long."""
        self.carry_out(self.cache.sweep(now))

    def carry_out(self, turns: Turns) -> None:
        """What has come of the waiting of some; the trouble of one is not that of the others."""
        for journey, gift in turns:
            try:
                _end_waiting(journey, gift)
            except Exception:
                log.exception("a request that waited could not go on", extra={"action": "answer_lost"})

    @property
    def busy(self) -> bool:
        """Whether somebody may wait here."""
        return self.cache.busy

    # Administration

    def purge(self, word: str | None) -> None:
        """Drop what bears a surrogate key, everything for None."""
        self.cache.purge(word)

    def reading(self) -> dict[str, int]:
        """Counters since the start, and what is kept now."""
        return self.cache.reading()

    def _arm(self, ref: str) -> Arm:
        arm = self._arms.get(ref)
        if arm is None:
            arm = self._arms[ref] = self._arm_of(ref)
        return arm


def _lead(journey: "Journey", lead: Lead) -> None:
    journey.flags = lead.flags
    if lead.asked is not None:
        journey.lead = lead
    elif PASSED not in journey.marks:
        journey.marks += PASSED


def _end_waiting(journey: "Journey", gift: Hit | Lead | None) -> None:
    journey.follow = None
    if gift is None:
        journey.give_up(DeadlineExceeded(journey.timeout_s or 0.0))
    elif isinstance(gift, Hit):
        _serve(journey, gift, SHARED)
    else:
        _lead(journey, gift)
        journey.resume()
        journey.proceed()


def _serve(journey: "Journey", hit: Hit, verdict: bytes) -> None:
    condition = _condition(journey)
    status = 304 if condition and matches(hit.etag, condition) else 200
    arm = journey.held or journey.arm
    journey.answer(status, render(hit, verdict, clock(), journey.common_headers(), arm.role_line, condition))


def _condition(journey: "Journey") -> bytes:
    return journey.facts.headers.get(b"if-none-match", b"")


def selecting(route: RouteSpec) -> tuple[str, ...]:
    """Request headers by which a route chooses versions, for `Vary`."""
    found: list[str] = []
    for split in route.splits:
        found += _headers_of_key(split.key)
    for match in (rule.match for rule in route.rules):
        found += match.headers
        found += ["cookie"] if match.cookies else []
        found += ["authorization"] if match.claims or match.caller else []
        found += _headers_of_key(match.key)
    return tuple(dict.fromkeys(found))


def _headers_of_key(key: KeySpec | None) -> list[str]:
    if key is None:
        return []
    named = {"cookie": key.cookie, "authorization": key.claim}
    return [key.header] if key.header else [header for header, given in named.items() if given]
