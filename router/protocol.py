"""The hot path: inference requests are answered straight from the HTTP parser's callbacks.

`InferenceProtocol` is uvicorn's own HTTP protocol, less ASGI for the inference endpoints: their requests become an
`Exchange`, which goes to a lane and comes back. Everything else falls through to the ASGI application, on the same
connection and in the order in which it came.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nstarx.errors import (
    HeadersTooLarge,
    InvalidRequest,
    LengthRequired,
    NStarXError,
    PayloadTooLarge,
    RequestTimeout,
)
from router.exchange import Exchange
from router.facts import Facts
from router.head import Head, read_head
from router.heads import KnownHead
from router.journey import Journey
from router.table import SAFE, Addressed, Target

if TYPE_CHECKING:
    from router.gateway import Gateway

LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut (cutting at once would lose the answer), and
how long an idle connection stays while the gateway drains."""

MAX_REQUEST_ID = 128
"""Bytes of a client's own request id; a longer one is replaced."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

IDLE, HEAD, BODY, REFUSED = range(4)
"""What a connection receives: nothing, a head, a body, or what it no longer reads."""


class InferenceProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.gateway: Gateway = config.app.state.gateway
        self.limits = self.gateway.limits
        self.receiving = IDLE
        self.since = 0.0
        """When the sweep first saw the connection in its present state; 0 when it has not yet."""
        self.read = 0
        """Bytes of the latest read."""
        self.pending = 0
        """Bytes of reads since a head began or body came: of one head or trailer, less its beginning."""
        self.cycle: Any = None
        self.head: KnownHead | None = None
        """The head parsed from the latest read, if it is one to remember."""
        self.facts: Facts | None = None
        """What the latest head says; the next one may be the same."""
        self.exchange: Exchange | None = None
        """The inference request being received."""
        self.goes_on = False
        """The next in line is being taken."""
        self.active: Any = None
        """The request whose turn it is: an Exchange, or uvicorn's cycle."""

    # Parser callbacks

    def data_received(self, data: bytes) -> None:
        if self.receiving == IDLE:
            end = data.find(b"\r\n\r\n") + 4
            known = self.gateway.heads.get(data[:end])
            if known is not None and len(data) == end + known.length and self.answered():
                self._repeat(known, data[end:])
            else:
                self.head = None
                self._parse(data)
                self._remember(data, end)
        elif self.receiving != REFUSED:
            self._parse(data)

    def _repeat(self, known: KnownHead, body: bytes) -> None:
        """A whole request in one read, its head parsed before: the parser need not see it."""
        self.since = 0.0
        exchange = self._exchange(known.target, known.head, True, known.request_id, known.headers, known.url)
        self.exchange = self.cycle = self.active = exchange
        exchange.body = body
        exchange.complete = exchange.has_turn = True
        exchange.start()

    def _remember(self, data: bytes, end: int) -> None:
        """The next request with this head need not be parsed, if this read was one whole request."""
        head = self.head
        if head is not None and len(data) == end + head.length:
            self.gateway.heads.learn(data[:end], head)

    def _parse(self, data: bytes) -> None:
        self.read = size = len(data)
        self.pending += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(memoryview(data)[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")
        if self.pending > self.limits.max_head_bytes and self.receiving != REFUSED:
            self.refuse(HeadersTooLarge(self.limits.max_head_bytes))

    def _decline(self, rest: memoryview) -> None:
        """Stay with HTTP/1.1 where another protocol is offered (RFC 9110, 7.8): read the head again, less the offer.

        The parser has left out the body of such a request: `rest` begins with it.
        """
        while self.parser.get_method() != b"CONNECT":
            lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
            start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            try:
                self.parser.feed_data(b"\r\n".join([start, *lines, b"", b""]))
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            except httptools.HttpParserError:
                break
        self.send_400_response("")

    def on_message_begin(self) -> None:
        if self.receiving == REFUSED:
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.exchange = None
        self.receiving = HEAD
        self.since = 0.0
        self.pending = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.receiving == REFUSED:
            return
        if (self.pending or self.read > self.limits.max_head_bytes) and self._head_is_too_large():
            self.refuse(HeadersTooLarge(self.limits.max_head_bytes))
            return
        found = self.gateway.targets.get(self.url) or self._plain_target()
        headers = dict(self.headers)
        target = found.of(headers.get(b"host", b"")) if isinstance(found, Addressed) else found
        if target is None or self.parser.get_method() != b"POST":
            self._fall_through()
            return
        if b"upgrade" in headers and self.parser.should_upgrade():
            return
        self.receiving = BODY
        self.since = 0.0
        head = read_head(headers)
        request_id, stays_open = _request_id(headers), self._stays_open(headers)
        exchange = self.exchange = self._exchange(target, head, stays_open, request_id, headers, self.url)
        if self.gateway.identity is not None and target.stages:
            exchange.refusal = exchange.refusal or self.gateway.identity.doubt(self.headers)
        self._take_turn(exchange)
        length = int(headers.get(b"content-length", b"0"))
        if length > self.limits.max_body_bytes:
            self._end_with(exchange, PayloadTooLarge(self.limits.max_body_bytes))
        elif not length and b"transfer-encoding" not in headers and b"content-length" not in headers:
            exchange.refusal = LengthRequired()
        elif b"expect" in headers:
            self._expect(exchange)
        elif length and exchange.keep_alive and exchange.refusal is None and b"transfer-encoding" not in headers:
            self.head = KnownHead(target, head, length, request_id, headers, self.url)

    def on_body(self, body: bytes) -> None:
        if self.receiving == REFUSED:
            return
        self.pending = 0
        exchange = self.exchange
        if exchange is None:
            super().on_body(body)
            return
        exchange.add(body)
        if exchange.size > self.limits.max_body_bytes:
            self._end_with(exchange, PayloadTooLarge(self.limits.max_body_bytes))

    def on_message_complete(self) -> None:
        if self.receiving != BODY:
            return
        self.receiving = IDLE
        self.since = 0.0
        exchange = self.exchange
        if exchange is None:
            super().on_message_complete()
            return
        exchange.complete = True
        if exchange.has_turn:
            exchange.start()

    def _head_is_too_large(self) -> bool:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return bool(size > self.limits.max_head_bytes)

    def _exchange(
        self, target: Target, head: Head, keep_alive: bool, id: bytes, headers: dict[bytes, bytes], url: bytes
    ) -> Exchange:
        if not target.stages:
            return Exchange(self, target, head, keep_alive, id)
        journey = Journey(self, target, head, keep_alive, id)
        facts = self.facts
        if facts is None or facts.headers is not headers:
            facts = self.facts = Facts(headers, url, self.client[0] if self.client else "")
        journey.facts = facts
        if self.gateway.identity is not None and journey.refusal is None:
            journey.refusal = self.gateway.identity.tell(journey.facts)
        return journey

    def _plain_target(self) -> Target | Addressed | None:
        """The target of a path that is written otherwise: with a query, percent-encoded, or as a whole URL."""
        url = self.url
        if url.startswith(b"/"):
            if b"?" not in url and b"%" not in url:
                return None
            path = url.partition(b"?")[0]
        else:
            path = httptools.parse_url(url).path or b""
        return self.gateway.targets.get(quote(unquote_to_bytes(path), SAFE).encode())

    def _stays_open(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the connection outlives this request. HTTP/1.0 clients would have to be told, so theirs doesn't."""
        if self.gateway.draining or not self.parser.should_keep_alive():
            return False
        return b"connection" not in headers or self.parser.get_http_version() != "1.0"

    def _expect(self, exchange: "Exchange") -> None:
        """The client waits until it is told to send its body, or not to."""
        if exchange.refusal is not None:
            self._end_with(exchange, exchange.refusal)
        elif exchange.has_turn:
            self.transport.write(CONTINUE)
        else:
            self.expect_100_continue = True

    def _fall_through(self) -> None:
        """Let uvicorn hand the request to the ASGI application, as if it had parsed the head itself."""
        if self.parser.should_upgrade():
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = (b"expect", b"100-continue") in ((n, v.lower()) for n, v in headers)
        super().on_headers_complete()
        self.receiving = BODY
        self.since = 0.0
        if self.gateway.draining:
            self.cycle.keep_alive = False

    # Order of answers

    def _take_turn(self, exchange: "Exchange") -> None:
        """Answers leave in the order of requests: behind an unfinished one, this one waits in uvicorn's pipeline."""
        previous, self.cycle = self.cycle, exchange
        if previous is None or previous.response_complete:
            exchange.has_turn = True
            self.active = exchange
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.active = cycle
        if isinstance(cycle, Exchange):
            cycle.has_turn = True
            if cycle.complete:
                cycle.start()
            elif self.expect_100_continue:
                self.transport.write(CONTINUE)
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As in uvicorn, but idle connections are found by the sweep instead of a timer each."""
        self.server_state.total_requests += 1
        self.since = 0.0
        if self.pipeline or self.flow.read_paused or self.flow.write_paused:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next in line. Of those that are answered at once, one comes after another, and none within another:
        a client may send hundreds ahead."""
        if self.goes_on:
            return
        self.goes_on = True
        try:
            while self._take_next() and self.answered():
                pass
        finally:
            self.goes_on = False

    def _take_next(self) -> bool:
        """Whether there was one to take."""
        if self.transport.is_closing():
            return False
        if self.flow.write_paused:
            self.flow.pause_reading()
            return False
        following = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:
            self.flow.resume_reading()
        if following:
            self._start_asgi_task(*following)
        return following is not None

    def resume_writing(self) -> None:
        """The client reads again: go on with what it sent meanwhile."""
        super().resume_writing()
        if self.answered():
            self._go_on()

    @property
    def lingers(self) -> bool:
        """True when what the client still sends is no longer read."""
        return self.receiving == REFUSED

    def answered(self) -> bool:
        """True when nothing that has had its turn waits for its answer."""
        active = self.active
        return active is None or active.response_complete

    # Refusals

    def send_400_response(self, msg: str) -> None:
        """What the parser can't read."""
        if self.receiving != REFUSED:
            self.refuse(
                InvalidRequest("this is not valid HTTP/1.1; check the request line, the headers and the framing")
            )

    def refuse(self, error: NStarXError) -> None:
        """Answer with an error in its turn, read no more, and close."""
        exchange = self.exchange if self.receiving == BODY else None
        if exchange is None:
            if self.receiving == BODY and not self._withdraw_cycle():
                self.receiving = REFUSED
                self.transport.close()
                return
            exchange = Exchange(self, None, Head(), False)
            self._take_turn(exchange)
        self._end_with(exchange, error)

    def _withdraw_cycle(self) -> bool:
        """The ASGI application won't get the rest of its request, nor answer it. False when it has begun to answer."""
        cycle = self.cycle
        if cycle.response_started:
            return False
        cycle.disconnected = cycle.response_complete = True
        cycle.message_event.set()
        if cycle is not self.active:
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self.active
        return True

    def _end_with(self, exchange: "Exchange", error: NStarXError) -> None:
        self.receiving = REFUSED
        self.since = 0.0
        exchange.refusal = error
        exchange.keep_alive = False
        exchange.complete = True
        exchange.forget_body()
        if exchange.has_turn:
            exchange.start()

    # Time and ends

    def sweep(self, now: float) -> None:
        """Once a second: end what takes too long. Costs requests nothing."""
        if not self.since or (self.flow.read_paused and not self.answered()):
            # What is not read because an earlier request is at work can't be late.
            self.since = now
            self._forget_answered()
            return
        waited = now - self.since
        if self.receiving == HEAD:
            self._time_out(waited, self.limits.head_timeout_s)
        elif self.receiving == BODY:
            self._time_out(waited, self.limits.body_timeout_s)
        elif self.answered():
            soon = self.receiving == REFUSED or self.gateway.draining
            if waited > (LINGER_S if soon else self.limits.keep_alive_s):
                # Closing would wait for a client that does not read its answer.
                self.transport.abort()

    def _time_out(self, waited: float, limit: float) -> None:
        if waited > limit:
            self.refuse(RequestTimeout(limit))

    def _forget_answered(self) -> None:
        """A quiet connection doesn't keep the body of its last request."""
        if isinstance(self.active, Exchange) and self.active.response_complete:
            self.active.forget_body()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        active = self.active
        if isinstance(active, Exchange):
            active.abandon()
        elif active is not None:
            active.disconnected = True
            active.message_event.set()
        self.cycle = self.active = self.exchange = None


def _request_id(headers: dict[bytes, bytes]) -> bytes:
    """The client's own id of a request, if it is fit for an answer's head."""
    given = headers.get(b"x-request-id", b"")
    return given if len(given) <= MAX_REQUEST_ID and given.isascii() and given.decode().isprintable() else b""
