"""One inference request on its way: received from a client, sent to a replica, answered."""

from http import HTTPStatus
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING

import orjson

from cluster.frames import FLAG_DEFLATE, FLAG_GZIP, FLAG_INVALID, NO_JSON_LENGTH
from judging.windows import INVALID_OUTPUT, LOST_ANSWER, TIMEOUT, is_failure
from nstarx.errors import DeadlineExceeded, NStarXError, Overloaded, Unavailable
from nstarx.histogram import bucket_of
from nstarx.spec.retry import GATEWAY_ERRORS, RetryOn
from router.arm import Arm
from router.head import Head
from router.health import Failure
from router.lanes import Lane
from router.table import Target

if TYPE_CHECKING:
    from router.protocol import InferenceProtocol

CLIENT_CLOSED_REQUEST = 499
"""How a client that went away is counted (nginx's number for it)."""
STREAM_BUFFER = 4 << 20
"""Bytes of a stream that a slow client may leave unread before the stream is ended."""

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}

MILLISECOND = 1_000_000
"""In nanoseconds, as the clock counts."""

clock = perf_counter_ns


class _NobodyListens:
    """Stands where uvicorn keeps an event for its ASGI cycle."""

    def set(self) -> None:
        return


class Exchange:
    """One inference request on its way: received, sent to a replica, answered. Also the `Waiter` of its lane.

    It stands where uvicorn keeps its ASGI cycle, so that requests of both sorts are answered in order.
    """

    __slots__ = (
        "accused", "arm", "attempts", "body", "borrowed", "complete", "connection", "deadline", "disconnected", "due",
        "flags", "gathered", "has_turn", "id", "json", "keep_alive", "lane", "marks", "refusal", "request_id",
        "response_complete", "sent", "size", "started", "streaming", "target", "timeout_s", "tried", "wait_ms",
    )  # fmt: skip
    message_event = _NobodyListens()

    arm: Arm
    id: int
    sent: int
    """When the present replica was asked."""
    started: int
    tried: tuple[Lane, ...]
    """Replicas that were asked in vain, once there are further tries."""
    deadline: int
    due: int
    """When something has to happen even without an answer: at the deadline, or when the answer counts as late."""
    wait_ms: int

    def __init__(
        self,
        connection: "InferenceProtocol",
        target: Target | None,
        head: Head,
        keep_alive: bool,
        request_id: bytes = b"",
    ) -> None:
        self.connection = connection
        self.target = target
        self.keep_alive = keep_alive
        self.json, self.flags, self.timeout_s, self.refusal = head
        self.request_id = request_id
        self.body = b""
        self.gathered: bytearray | None = None
        """The body so far, when it comes in several pieces."""
        self.size = 0
        self.complete = False
        self.has_turn = False
        self.response_complete = False
        self.disconnected = False
        self.streaming = False
        self.lane: Lane | None = None
        self.attempts = 0
        self.borrowed = 0
        """Retries under way that the route's budget counts."""
        self.marks = b""
        """Header lines that only this answer has."""
        self.accused: tuple[Arm, int] | None = None
        """The arm that has failed, and how, until what answers in its place shows whether that was its own fault."""

    # The body

    def add(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self.size += len(piece)
        if not self.body:
            self.body = piece
            return
        if self.gathered is None:
            self.gathered = bytearray(self.body)
        self.gathered += piece

    def forget_body(self) -> None:
        """Nobody will ask for it any more."""
        self.body = b""
        self.gathered = None

    # Towards the replica

    def start(self) -> None:
        """Body complete and turn come: decide, and send."""
        target = self.target
        if self.refusal is not None or target is None:
            self._refuse(self.refusal or Unavailable("there is no target"))
            return
        if self.gathered is not None:
            self.body, self.gathered = bytes(self.gathered), None
        self.started = self.sent = started = clock()
        route = target.route
        if self.timeout_s is None or self.timeout_s > route.timeout_s:
            self.timeout_s = route.timeout_s
        self.deadline = self.due = started + int(self.timeout_s * 1e9)
        self.wait_ms = int(self.timeout_s * 1000)
        self._decide(target)

    def _decide(self, target: Target) -> None:
        """Which version answers: the one whose turn it is."""
        self._take(target.next_arm())
        self._send()

    def _take(self, arm: Arm) -> None:
        """This version answers, and nobody waits for it too long when another could."""
        self.arm = arm
        arm.tally.started += 1
        if arm.rescuer is not None and self.target is not None and self.timeout_s is not None:
            late_after_s = self.target.route.rescue.late_after_s or self.timeout_s / 2
            self.due = min(self.deadline, self.started + int(late_after_s * 1e9))

    def _send(self) -> None:
        lane = self.arm.balancer.pick()
        if lane is None:
            self._look_elsewhere()
            return
        self.lane = lane
        self.id = lane.send(self)

    def _wait_until(self, due: int) -> None:
        """Nothing has to happen before then."""
        self.due = due

    def _ask(self, lane: Lane) -> None:
        """Send it to a replica later than at once."""
        self.sent = clock()
        self.lane = lane
        self.id = lane.send(self)

    def _look_elsewhere(self, again: bool = False) -> None:
        """Not where it was, if it was anywhere: another replica takes it, or another version of the split where this
        one has none left, or an error says why. `again` allows the same replica where there is no other."""
        arm = self.arm
        if not arm.backend.lanes and self.target and (other := self.target.live_arm()):
            arm.tally.started -= 1
            other.tally.started += 1
            self.arm = arm = other
            self._wait_until(self.deadline)
        lane = arm.balancer.pick_other(self.tried if self.attempts else ())
        if lane is None and again:
            lane = arm.balancer.pick()
        if lane is not None:
            arm.tally.retries += self.attempts > 0
            self._ask(lane)
        elif arm.backend.lanes:
            self._fail(Overloaded(arm.ref))
        elif self.target and self.target.route.fallback and (static := self.target.route.fallback.static):
            self._count(static.status)
            self.marks += b"x-nstarx-fallback: true\r\n"
            self._write(static.status, b"content-type: application/json\r\n", orjson.dumps(static.body))
        else:
            self._fail(Unavailable(f"no replica of {arm.ref} is ready; retry after a second"))

    def _retry(self, again: bool = False) -> bool:
        """Send it once more, if it may be. True when it was sent, or has been answered.

        Not bounded by the budget: what a dead or full replica left undone moves, and does not multiply.
        """
        target = self.target
        if self.streaming or target is None or self.attempts >= target.route.retry.num_retries:
            return False
        if self.lane is not None:
            self.tried = (*self.tried, self.lane) if self.attempts else (self.lane,)
        self.attempts += 1
        self.wait_ms = (self.deadline - clock()) // MILLISECOND
        if self.wait_ms > 0:
            self._look_elsewhere(again)
        else:
            self._fail(DeadlineExceeded(self.timeout_s or 0.0))
        return True

    def _retry_failed(self, status: int) -> bool:
        """Once more after a replica's failure, where the route asks for it and its budget has room."""
        target, arm = self.target, self.arm
        if target is None or self.lane is None or self.streaming or self.disconnected or not self._wants_retry(status):
            return False
        if not target.route.idempotent or self.attempts >= target.route.retry.num_retries:
            return False
        if not target.retries.take(arm.backend.load()):
            arm.tally.retries_refused += 1
            return False
        # Before anything else is counted: whoever watches takes all since the last failure for one stretch.
        self._tell(arm, status)
        self.borrowed += 1
        arm.tally.started += 1
        return self._retry(again=True)

    def _wants_retry(self, status: int) -> bool:
        """Whether the route repeats calls that ended so."""
        return self.target is not None and status in self.target.route.retry.statuses

    def _give_back(self) -> None:
        """The retries that the budget lent have ended."""
        retries = self.target and self.target.retries
        while self.borrowed and retries:
            retries.give_back()
            self.borrowed -= 1

    # From the replica (Waiter)

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        if status >= 500 or flags & FLAG_INVALID:
            outcome = INVALID_OUTPUT if status == 200 else status
            if self.accused is not None:
                self._compare(outcome)
            self._count(status)
            self.blame(self.lane, status)
            if self._recovers(outcome):
                return
        else:
            now, healths = self._count(status), self.arm.healths
            if healths and (health := healths.get(self.lane)):  # type: ignore[arg-type]
                health.succeeded(now - self.sent)
        if not self.disconnected:
            self._deliver(status, flags, json, body)

    def _deliver(self, status: int, flags: int, json: int, body: bytes) -> None:
        """Give the client a replica's answer."""
        if status == 200 and not flags and json == NO_JSON_LENGTH and self.keep_alive:
            connection = self.connection
            gateway = connection.gateway
            connection.transport.write(
                b"%b%d\r\n%bx-request-id: %b\r\n%b\r\n%b"
                % (
                    self.arm.head,
                    len(body),
                    gateway.date,
                    self.request_id or gateway.new_request_id(),
                    self.marks,
                    body,
                )
            )
            self.response_complete = True
            connection.on_response_complete()
        else:
            self._write(status, self._headers(flags, json), body)

    def on_chunk(self, body: bytes) -> None:
        if self.disconnected:
            return
        transport = self.connection.transport
        if transport.is_closing():
            return
        if not self.streaming:
            self._begin_stream()
        transport.write(b"data: %b\n\n" % body)
        if transport.get_write_buffer_size() > STREAM_BUFFER:
            transport.abort()

    def on_end(self, status: int) -> None:
        self._count(status)
        if status >= 500:
            self.blame(self.lane, status)
            if self._recovers(status):
                return
        if not self.disconnected:
            if not self.streaming:
                self._begin_stream()
            self._close()

    def on_expired(self) -> None:
        # The client may have set a shorter time in the body, which the gateway doesn't read.
        self._fail(DeadlineExceeded(round((clock() - self.started) / 1e9, 3)))

    def on_overloaded(self) -> None:
        if not (self._repeats("refused") and self._retry()):
            self._fail(Overloaded(self.arm.ref))

    def on_lane_lost(self) -> None:
        self._mourn()
        target = self.target
        may = target is not None and target.route.idempotent and self._repeats("reset")
        if self.streaming or not (may and self._retry()):
            self._fail(Unavailable(f"the replica of {self.arm.ref} with this request died; repeat the request"))

    def expire(self) -> None:
        """What was due is overdue: the deadline has passed, or a candidate's answer is late."""
        if self.due < self.deadline and not self._may_rescue():
            # Nobody could answer in its place: it has the rest of the time.
            self._wait_until(self.deadline)
            return
        self._withdraw()
        if self.due < self.deadline:
            self._count(TIMEOUT)
            self._rescue(TIMEOUT)
        else:
            self._fail(DeadlineExceeded(self.timeout_s or 0.0))

    def _withdraw(self) -> None:
        """The replica has had its time."""
        if self.lane is not None:
            self.lane.cancel(self.id)
            self._given_up(self.lane, self.sent)

    def _given_up(self, lane: Lane, since: int) -> None:
        """Nobody waits any more for a replica that was asked then."""
        if self.target is not None:
            self.arm.pool.given_up(lane, clock() - since, self.target.patience_ns, monotonic())

    # Failures

    def _fail(self, error: NStarXError) -> None:
        self._count(error.status)
        if error.status >= 500 and self._recovers(error.status):
            return
        if self.disconnected:
            return
        if self.streaming:
            self.on_chunk(orjson.dumps({"error": error.sentence}))
            self._close()
        else:
            self._finish_with_error(error)

    def _recovers(self, status: int) -> bool:
        """After a failed call has been counted. True when another version answers instead, before the client sees it.

        `status` is that of the answer, or INVALID_OUTPUT for one of 200 that is not to be trusted.
        """
        arm = self.arm
        arm.tally.invalid += status == INVALID_OUTPUT
        if self._retry_failed(status):
            return True
        if self._may_rescue():
            self._rescue(status)
            return True
        self._tell(arm, status)
        return False

    def _mourn(self) -> None:
        """A replica has died. That is one failure of the version, however many requests it had in hand."""
        lane, tally = self.lane, self.arm.tally
        if lane is not None and tally not in lane.mourners:
            lane.mourners.append(tally)
            tally.lost += 1
            self._tell(self.arm, LOST_ANSWER)

    def _compare(self, status: int) -> None:
        """The other version's call has ended. Where that has failed at the same request, or nobody waited for its
        answer, the first one's failure says nothing against it: whoever sends what no version can answer, and whoever
        leaves, must not decide about a release."""
        if self.accused is None:
            return
        (arm, failure), self.accused = self.accused, None
        if is_failure(status) or status == CLIENT_CLOSED_REQUEST:
            arm.tally.excused += 1
        else:
            arm.tally.spared[failure] -= 1
            self._tell(arm, failure)

    def blame(self, lane: Lane | None, status: int) -> None:
        """Hold a failed answer against the replica that gave it."""
        if lane is not None:
            kind = Failure.GATEWAY if status in GATEWAY_ERRORS else Failure.ERROR
            self.arm.pool.failed(lane, kind, monotonic())

    def _repeats(self, word: RetryOn) -> bool:
        """Whether the route wants a further try after this."""
        return self.target is not None and word in self.target.route.retry.retry_on

    def _tell(self, arm: Arm, status: int) -> None:
        """Let whoever watches the version know how a call has ended."""
        fuse = arm.fuse
        if fuse is not None:
            self.request_id = self.request_id or self.connection.gateway.new_request_id()
            fuse.failed(status, self.request_id.decode("latin-1"), monotonic())

    def _may_rescue(self) -> bool:
        """Whether the client still waits for its first byte, there is time left, somebody could answer, and the budget
        has room. Takes the rescue from the budget."""
        target, rescuer = self.target, self.arm.rescuer
        if rescuer is None or target is None or self.streaming or self.disconnected or not rescuer.backend.lanes:
            return False
        return clock() + MILLISECOND < self.deadline and target.may_rescue()

    def _rescue(self, status: int) -> None:
        """The version that answers for the present one, which has failed, takes over."""
        failed, arm = self.arm, self.arm.rescuer
        assert arm is not None
        failed.tally.rescued += 1
        if is_failure(status):
            failed.tally.spared[status] = failed.tally.spared.get(status, 0) + 1
            self.accused = failed, status
        self.marks += b"x-nstarx-rescued: %b\r\n" % failed.ref.encode()
        self._turn_to(arm)
        self._ask_anew()

    def _ask_anew(self) -> None:
        """After a turn to another version."""
        self._send()

    def _turn_to(self, arm: Arm) -> None:
        """Another version is to answer."""
        arm.tally.started += 1
        self.arm = arm
        self.lane = None
        self._wait_until(self.deadline)
        self.sent = now = clock()
        self.wait_ms = (self.deadline - now) // MILLISECOND

    # Towards the client

    def abandon(self) -> None:
        """The client went away: its work is withdrawn."""
        self.disconnected = True
        if self.lane is not None and not self.response_complete:
            self.lane.cancel(self.id)
            self._count(CLIENT_CLOSED_REQUEST)
            self.lane = None

    def _count(self, status: int) -> int:
        """The call of the present arm has ended; when that was."""
        if self.borrowed:
            self._give_back()
        if self.accused is not None:
            self._compare(status)
        tally = self.arm.tally
        now = clock()
        spent = now - self.started
        tally.latency[bucket_of(spent)] += 1
        tally.latency_ns += spent
        codes = tally.codes
        codes[status] = codes.get(status, 0) + 1
        return now

    def _begin_stream(self) -> None:
        """The head of server-sent events; the end of the connection ends them."""
        self.streaming = True
        self.keep_alive = False
        self.connection.transport.write(
            b"HTTP/1.1 200 OK\r\nx-nstarx-version: %b\r\nx-nstarx-role: %b\r\ncontent-type: text/event-stream\r\n"
            b"cache-control: no-cache\r\n%b\r\n"
            % (self.arm.ref.encode(), self.arm.role.encode(), self._common_headers())
        )

    def _refuse(self, error: NStarXError) -> None:
        self.connection.gateway.refuse(error)
        self._finish_with_error(error)

    def _finish_with_error(self, error: NStarXError) -> None:
        headers = b"content-type: application/json\r\n"
        if error.retry_after_s is not None:
            headers += b"retry-after: %d\r\n" % error.retry_after_s
        self._write(error.status, headers, orjson.dumps({"error": error.sentence}))

    def _common_headers(self) -> bytes:
        """Header lines of every answer."""
        gateway = self.connection.gateway
        end = b"" if self.keep_alive else b"connection: close\r\n"
        return b"%bx-request-id: %b\r\n%b%b" % (
            gateway.date,
            self.request_id or gateway.new_request_id(),
            self.marks,
            end,
        )

    def _headers(self, flags: int, json: int) -> bytes:
        headers = b"x-nstarx-version: %b\r\nx-nstarx-role: %b\r\n" % (self.arm.ref.encode(), self.arm.role.encode())
        if json == NO_JSON_LENGTH:
            headers += b"content-type: application/json\r\n"
        else:
            headers += b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % json
        if flags & (FLAG_GZIP | FLAG_DEFLATE):
            headers += b"content-encoding: %b\r\n" % (b"gzip" if flags & FLAG_GZIP else b"deflate")
        return headers

    def _write(self, status: int, headers: bytes, body: bytes) -> None:
        self._put(
            b"HTTP/1.1 %d %b\r\n%b%bcontent-length: %d\r\n\r\n%b"
            % (status, PHRASES.get(status, b"Answer"), headers, self._common_headers(), len(body), body)
        )

    def _put(self, answer: bytes) -> None:
        """Send the client a whole answer."""
        self.connection.transport.write(answer)
        if self.keep_alive:
            self.response_complete = True
            self.connection.on_response_complete()
        else:
            self._close()

    def _close(self) -> None:
        """The answer is complete, and the last one on its connection."""
        self.response_complete = True
        connection = self.connection
        connection.server_state.total_requests += 1
        if connection.lingers:
            connection.since = 0.0
            if connection.transport.can_write_eof() and not connection.transport.is_closing():
                connection.transport.write_eof()
        else:
            connection.transport.close()
