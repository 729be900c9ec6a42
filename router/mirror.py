"""A shadow as one route has it: which requests are copied, and a copy on its way."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from cluster.frames import FLAG_INVALID, FLAG_STREAM, NO_JSON_LENGTH
from judging.answers import Answer
from judging.shadow_examples import Pair
from judging.shadow_tally import Drop, ShadowTally
from judging.shadow_trial import trial_of
from nstarx.spec.route import RouteSpec
from nstarx.spec.shadow import ShadowSpec
from router.lanes import Backend, Lane
from router.sampling import Sampler, sampler
from router.tally import Tally

if TYPE_CHECKING:
    from router.journey import Journey

MOST_ANSWER = 1 << 20
"""Bytes of the primary's answer that are kept to be compared; of a larger one only its status."""
NO_ROOM, TOO_LATE = 503, 504
REPLICA_LOST = 502
"""How a copy ends whose replica died with it in hand: that may well be the version's own doing."""

clock = time.perf_counter_ns


class Trial(NamedTuple):
    """A shadow as it is told to be at present, and what it has shown since."""

    spec: ShadowSpec
    name: str
    tally: ShadowTally


class Answered(NamedTuple):
    """A request whose client has its answer."""

    mirror: "Mirror"
    journey: "Journey"
    request: bytes
    """The body, which the journey may forget."""
    answer: Answer
    at: int
    """When, on the clock of `time.perf_counter_ns`."""


class Sender(Protocol):
    """What carries out what mirrors decide (`router.shadowing.Shadowing`)."""

    def note(self, answered: Answered) -> None:
        """Ask the mirror what to make of it in a later turn of the event loop."""

    def left_out(self, size: int) -> Drop | None:
        """Why no copy of so many bytes can be taken at present, by any shadow."""

    def ended(self, copy: "Copy", answer: Answer, spent: int) -> None:
        """A copy has come back, after so many nanoseconds."""


class Copy:
    """A copied request on its way to the shadow: the `Waiter` of its lane."""

    __slots__ = (
        "at", "body", "due", "flags", "held", "id", "json", "lane", "mirror", "primary", "primary_ns", "request_id",
        "rescued", "sent", "timeout_s", "traced", "trial", "values", "version", "wait_ms",
    )  # fmt: skip

    id: int
    lane: Lane
    sent: int
    due: int
    """When nobody waits for its answer any more, on the clock of `time.perf_counter_ns`."""

    def __init__(self, answered: Answered) -> None:
        self.mirror, journey, self.body, primary, at = answered
        self.trial = self.mirror.trial
        self.flags, self.json = journey.flags, journey.json
        self.timeout_s = self.trial.spec.timeout_s or journey.timeout_s or 0.0
        self.wait_ms = int(self.timeout_s * 1000)
        self.held = len(self.body) + len(primary.body)
        """Bytes that it keeps from being forgotten."""
        self.request_id = journey.request_id
        self.at = time.time()
        self.version = journey.arm.ref
        """The version whose answer the client got."""
        self.rescued = journey.arm.role == "rescue"
        self.primary = primary if len(primary.body) <= MOST_ANSWER else primary._replace(body=b"")
        self.primary_ns = at - journey.started
        self.values = self.mirror.values(journey)
        self.traced = journey.traced.copied() if journey.traced else None

    def send(self, lane: Lane, now: int) -> None:
        """Begin to wait for the shadow's answer."""
        self.lane, self.sent, self.due = lane, now, now + int(self.timeout_s * 1e9)
        self.mirror.calls.started += 1
        self.id = lane.send(self, self.traced.asked(lane) if self.traced else b"")

    def expire(self) -> None:
        """Its time is up."""
        self.lane.cancel(self.id)
        self._end(TOO_LATE)

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        self.mirror.calls.invalid += status == 200 and flags & FLAG_INVALID > 0
        self._end(status, body, json)

    def on_chunk(self, body: bytes) -> None:
        """Streams are not compared."""

    def on_end(self, status: int) -> None:
        self._end(status)

    def on_expired(self) -> None:
        self._end(TOO_LATE)

    def on_overloaded(self) -> None:
        self._end(NO_ROOM)

    def on_lane_lost(self) -> None:
        self.mirror.calls.lost += 1
        self._end(REPLICA_LOST)

    def _end(self, status: int, body: bytes = b"", json: int = NO_JSON_LENGTH) -> None:
        spent = clock() - self.sent
        if self.traced:
            self.traced.came_to(status)
        self.mirror.calls.ended(status, spent)
        self.mirror.sender.ended(self, answer_of(status, json, body), spent)

    def comparable(self) -> bool:
        """Whether enough of the primary's answer is there to compare more than its status."""
        return bool(self.primary.body)

    def pair(self, answer: Answer, spent: int) -> Pair:
        """The request with both answers."""
        return Pair(
            id=self.request_id.decode("latin-1"),
            at=self.at,
            request=answer_of(0, self.json, self.body),
            primary=self.primary,
            shadow=answer,
            primary_ns=self.primary_ns,
            shadow_ns=spent,
            values=self.values,
            version=self.version,
            rescued=self.rescued,
        )


class Mirror:
    """One shadow of one route. As an `Ending`, it is told of each answer that the route has given."""

    trial: Trial
    _chooses: Sampler

    def __init__(self, sender: Sender, route: str, ref: str, backend: Backend, calls: Tally) -> None:
        self.sender = sender
        self.route = route
        self.ref = ref
        self.backend = backend
        self.calls = calls
        self.in_flight = 0
        """Copies that wait for their answer."""
        self.told: tuple[object, ...] = ()
        """What the coordinator has been told of last."""
        self._names: list[bytes] = []

    def follow(self, route: RouteSpec, spec: ShadowSpec, resets: int) -> None:
        """Do as this says from now on. What was counted stays, unless it would mean something else."""
        before, name = getattr(self, "trial", None), trial_of(route, spec, resets)
        if before is None or (before.spec.percent, before.spec.key) != (spec.percent, spec.key):
            self._chooses = sampler(spec, f"{self.route}/shadow/{self.ref}")
        same = before is not None and before.name == name
        self.trial = Trial(spec, name, before.tally if before and same else ShadowTally(spec.examples))
        self._names = [header.encode() for header in spec.attributes]

    def __call__(self, journey: "Journey", status: int, flags: int, json: int, body: bytes) -> None:
        """The client's answer is written, but leaves at the end of this turn: whatever is done here, it waits for."""
        # Without a lane no replica was asked; and the shadow is not compared with itself, nor asked for streams.
        if journey.lane is not None and journey.arm.ref != self.ref and not journey.flags & FLAG_STREAM:
            self.sender.note(Answered(self, journey, journey.body, answer_of(status, json, body), clock()))

    def copy(self, answered: Answered, late: bool) -> Copy | None:
        """A copy, if the request is one to copy and there is room. `late`: there is more to do than time."""
        journey = answered.journey
        if journey.lane is None or not self._chooses(journey.facts):
            return None
        tally = self.trial.tally
        tally.sampled += 1
        drop = self._left_out(journey.lane, len(answered.request) + len(answered.answer.body), late)
        if drop is None:
            return Copy(answered)
        tally.drop(drop)
        return None

    def _left_out(self, primary: Lane, size: int, late: bool) -> Drop | None:
        """Why a request is not copied, of so many bytes with its answer."""
        if late:
            return Drop.busy
        if self.in_flight >= self.trial.spec.max_in_flight:
            return Drop.in_flight
        return Drop.busy if 2 * len(primary.waiting) > primary.limit else self.sender.left_out(size)

    def values(self, journey: "Journey") -> tuple[str, ...]:
        """The values of the shadow's attributes."""
        get = journey.facts.headers.get
        return tuple([get(name, b"").decode("latin-1") for name in self._names])

    def send(self, copy: Copy, now: int) -> bool:
        """Give a copy to a replica, if there is one with room."""
        lane = self.backend.pick()
        if lane is None or 2 * len(lane.waiting) >= lane.limit:
            self.trial.tally.drop(Drop.full if self.backend.lanes else Drop.no_replica)
            return False
        self.in_flight += 1
        copy.send(lane, now)
        return True

    def counts(self) -> dict[str, Any]:
        """What has been counted in this trial, in short."""
        tally = self.trial.tally
        return {
            "route": self.route,
            "ref": self.ref,
            "sampled": tally.sampled,
            "drops": tally.drops.copy(),
            "outcomes": tally.outcomes.copy(),
            "mismatched": tally.mismatched,
            "in_flight": self.in_flight,
        }


def answer_of(status: int, json: int, body: bytes) -> Answer:
    """What a frame holds, as it is compared."""
    return Answer(status, body, None if json == NO_JSON_LENGTH else json)
