"""The gateway's end of lanes: one to each replica, and for each version the choice among them."""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Protocol

from cluster.frames import (
    FLAG_TRACE,
    HANDSHAKE_LIMIT,
    HEADER,
    NONCE_BYTES,
    PREFACE,
    FrameReader,
    Kind,
    hello,
    pack,
    proof,
)
from cluster.keepalive import keep_alive
from cluster.records import ReplicaRecord
from nstarx.errors import LaneError
from nstarx.spec.balancing import BalancingSpec
from router.pool import OnDecision, Pool

log = logging.getLogger("nstarx.lanes")

PAYLOAD_LIMIT = 1 << 30
CONNECT_S = 5.0
WRITE_BUFFER = 64 << 20
"""Bytes waiting for a replica to read them, above which its lane takes no more requests."""
USUAL = BalancingSpec()
"""How requests are spread where no route says it otherwise."""


class Waiter(Protocol):
    """What waits for a replica's answer."""

    body: bytes
    flags: int
    json: int
    wait_ms: int

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        """The complete answer."""

    def on_chunk(self, body: bytes) -> None:
        """A partial result."""

    def on_end(self, status: int) -> None:
        """The stream is complete; another status than 200 says that it ended in an error."""

    def on_expired(self) -> None:
        """The replica did not run it: too late."""

    def on_overloaded(self) -> None:
        """The replica did not run it: no room."""

    def on_lane_lost(self) -> None:
        """The replica is gone; whether it ran is not known."""


class Lane(asyncio.Protocol):
    """A connection to one replica. Requests of one turn of the event loop leave in one write."""

    def __init__(self, record: ReplicaRecord, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.record = record
        self.name = record.replica
        self.limit = limit
        self.waiting: dict[int, Waiter] = {}
        self.ready = loop.create_future()
        """Done when both ends have proved themselves; fails with LaneError otherwise."""
        self.gone = loop.create_future()
        """Done when the connection is lost."""
        self.open = False
        """Takes new requests."""
        self.started_at = 0.0
        """When it was opened; seconds on the clock of `time.monotonic`."""
        self.on_close: Callable[[Lane], None] = lambda lane: None
        self.mourners: list[Any] = []
        """Tallies that have counted the replica's death."""
        self._loop = loop
        self._last_id = 0
        self._outbox: list[bytes] = []
        self._questions: dict[int, asyncio.Future[bytes]] = {}
        self._reader = FrameReader(HANDSHAKE_LIMIT)
        self._key = bytes.fromhex(record.key)
        self._nonce = self._challenge = b""
        self._transport: asyncio.Transport = None  # type: ignore[assignment]

    @property
    def full(self) -> bool:
        """True when the replica has as much as it may have at a time."""
        return len(self.waiting) >= self.limit

    # Sending

    def send(self, call: Waiter, place: bytes = b"") -> int:
        """Queue a request; its id, with which `cancel` withdraws it. `place` is where a traced one is in its trace."""
        self._last_id = id = (self._last_id + 1) & 0xFFFFFFFF
        idle = not self.waiting
        self.waiting[id] = call
        body, flags = call.body, call.flags
        if place:
            body, flags = place + body, flags | FLAG_TRACE
        outbox = self._outbox
        outbox += (HEADER.pack(len(body), 16, flags, 0, id, call.wait_ms, call.json), body)
        if idle:
            # A replica at rest is not kept waiting for company; what comes meanwhile is the next batch.
            self._flush()
        elif len(outbox) == 2:
            self._loop.call_soon(self._flush)
        return id

    def cancel(self, id: int) -> None:
        """Nobody waits for this request any more."""
        if self.waiting.pop(id, None) is not None:
            if not self._outbox:
                self._loop.call_soon(self._flush)
            self._outbox.append(pack(Kind.CANCEL, id))
            self._leave_if_done()

    def ask(self) -> "asyncio.Future[bytes]":
        """The replica's counters, as JSON; fails with LaneError when the lane ends first."""
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if self._transport.is_closing():
            answer.set_exception(LaneError("the lane has ended"))
            return answer
        self._last_id = id = (self._last_id + 1) & 0xFFFFFFFF
        self._questions[id] = answer
        self._transport.write(pack(Kind.STATS, id))
        return answer

    def drain(self) -> None:
        """Take no more requests, and close when the last answer has come."""
        if self.open:
            self.open = False
            self.on_close(self)
        self._leave_if_done()

    def abort(self) -> None:
        """End the connection at once, if there is one."""
        if self._transport:
            self._transport.abort()

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if outbox and not self._transport.is_closing():
            self._transport.write(b"".join(outbox))

    def _leave_if_done(self) -> None:
        if self.ready.done() and not self.open and not self.waiting:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        keep_alive(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        transport.write(PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.open = self.open, False
        if not self.ready.done():
            self.ready.set_exception(LaneError("the replica closed the lane during the handshake"))
        if not self.gone.done():
            self.gone.set_result(None)
        if was_open:
            self.on_close(self)
        for question in self._questions.values():
            if not question.done():
                question.set_exception(LaneError("the lane ended before the answer came"))
        waiting, self.waiting = self.waiting, {}
        for call in waiting.values():
            try:
                call.on_lane_lost()
            except Exception:
                log.exception("a loss could not be told", extra={"action": "answer_lost"})

    def pause_writing(self) -> None:
        self._limit, self.limit = self.limit, 0

    def resume_writing(self) -> None:
        self.limit = self._limit

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
            waiting, response = self.waiting, Kind.RESPONSE
            for _, kind, flags, status, id, _, json, payload in frames:
                try:
                    if kind == response:
                        call = waiting.pop(id, None)
                        if call is not None:
                            call.on_response(status, flags, json, payload)
                    else:
                        self._other(kind, status, id, payload)
                except LaneError:
                    raise
                except Exception:
                    # One client's trouble must not cost the other clients on this lane their answers.
                    log.exception("an answer could not be delivered", extra={"action": "answer_lost"})
        except LaneError as error:
            log.warning("lane to %s broken: %s", self.record.ref, error, extra={"action": "lane_broken"})
            self._fail(error)
        if not self.open:
            self._leave_if_done()

    def _fail(self, error: LaneError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
        self.abort()

    def _other(self, kind: int, status: int, id: int, payload: bytes) -> None:
        if kind == Kind.CHUNK:
            if call := self.waiting.get(id):
                call.on_chunk(payload)
        elif kind == Kind.END:
            if call := self.waiting.pop(id, None):
                call.on_end(status)
        elif kind == Kind.COUNTERS:
            if (question := self._questions.pop(id, None)) and not question.done():
                question.set_result(payload)
        elif kind == Kind.GOAWAY:
            self._goaway(payload)
        elif not self.ready.done():
            self._greet(kind, payload)
        elif kind not in _ENDINGS:
            raise LaneError(f"a replica doesn't send frames of kind {kind}")
        elif call := self.waiting.pop(id, None):
            _ENDINGS[kind](call)

    def _goaway(self, payload: bytes) -> None:
        if self.ready.done():
            self.drain()
        else:
            self._fail(LaneError(payload.decode(errors="replace")))

    def _greet(self, kind: int, payload: bytes) -> None:
        ref = self.record.ref
        if kind == Kind.CHALLENGE:
            self._nonce = secrets.token_bytes(NONCE_BYTES)
            self._challenge = payload
            self._transport.write(pack(Kind.HELLO, payload=hello(self._key, self._nonce, payload, ref)))
        elif kind == Kind.READY:
            wanted = proof(self._key, b"replica", self._challenge, self._nonce, ref.encode())
            if not hmac.compare_digest(payload, wanted):
                raise LaneError("the replica does not know its own key")
            self._reader.limit = PAYLOAD_LIMIT
            self.open = True
            self.ready.set_result(None)
        else:
            raise LaneError(f"a replica doesn't start with a frame of kind {kind}")


_ENDINGS: dict[int, Callable[[Waiter], None]] = {
    Kind.EXPIRED: lambda call: call.on_expired(),
    Kind.OVERLOADED: lambda call: call.on_overloaded(),
}


async def connect(record: ReplicaRecord, limit: int, node: str) -> Lane:
    """A lane to a replica, its handshake done: by its Unix socket on the same node, else by TCP. Raises LaneError."""
    loop = asyncio.get_running_loop()
    lane = Lane(record, limit, loop)
    try:
        async with asyncio.timeout(CONNECT_S):
            await _dial(loop, lane, record, node)
            await lane.ready
    except BaseException as error:
        lane.abort()
        if isinstance(error, OSError):
            raise LaneError(f"{record.ref} at {record.addresses}: {str(error) or 'no answer'}") from None
        raise
    return lane


async def _dial(loop: asyncio.AbstractEventLoop, lane: Lane, record: ReplicaRecord, node: str) -> None:
    """Connect to the first address that answers: another container of the node may not see the Unix socket."""
    failure: Exception = LaneError(f"{record.ref} has no address that this node can reach: {record.addresses}")
    for address in record.addresses:
        scheme, _, place = address.partition(":")
        try:
            if scheme == "unix" and record.node == node:
                await loop.create_unix_connection(lambda: lane, place)
                return
            if scheme == "tcp":
                host, _, port = place.rpartition(":")
                await loop.create_connection(lambda: lane, host, int(port))
                return
        except OSError as error:
            failure = error
    raise failure


class Backend:
    """One version's lanes, as this gateway sees them."""

    def __init__(self, ref: str, on_decision: OnDecision = lambda ref, decision: None) -> None:
        """`on_decision` is told of ejections and returns."""
        self.ref = ref
        self.lanes: list[Lane] = []
        self.pools: dict[BalancingSpec, Pool] = {}
        """The ways in which routes choose among them."""
        self._on_decision = on_decision
        self.usual = self.pool(USUAL)
        """For whatever comes by no route."""

    def pool(self, spec: BalancingSpec) -> Pool:
        """The one pool of all routes with this policy."""
        pool = self.pools.get(spec)
        if pool is None:
            pool = self.pools[spec] = Pool(self.ref, spec, self.lanes, self._on_decision, monotonic())
        return pool

    def keep_pools(self, specs: Collection[BalancingSpec]) -> None:
        """Forget those of policies that no route has any more."""
        self.pools = {spec: pool for spec, pool in self.pools.items() if spec in specs or pool is self.usual}

    def add(self, lane: Lane) -> None:
        """A lane is ready; it is forgotten the moment it takes no more requests."""
        lane.on_close = self._remove
        if lane.open:
            lane.started_at = now = monotonic()
            self.lanes.append(lane)
            for pool in self.pools.values():
                pool.join(lane, now)

    def _remove(self, lane: Lane) -> None:
        if lane in self.lanes:
            self.lanes.remove(lane)
            for pool in self.pools.values():
                pool.leave(lane, monotonic())

    def load(self) -> int:
        """Requests under way."""
        return sum([len(lane.waiting) for lane in self.lanes])

    def pick(self) -> Lane | None:
        """Who takes a request that comes by no route; None when there is nobody with room."""
        return self.usual.balancer.pick()
