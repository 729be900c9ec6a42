"""The hot path: inference requests are answered straight from the HTTP parser's callbacks.

`InferenceProtocol` is uvicorn's own HTTP protocol, less ASGI for the inference endpoints: their requests become an
`Exchange`, which goes to a lane and comes back. Everything else falls through to the ASGI application, on the same
connection and in the order in which it came.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

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
from router.head import Head, read_head
from router.table import Target

if TYPE_CHECKING:
    from router.gateway import Gateway

LINGER_S = 2.0
"""How long a refused client may go on sending before the connection is cut; cutting at once would lose the answer."""

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
        self.arrived = 0
        """Bytes of the head, at the most: what came in the reads that it was part of."""
        self.cycle: Any = None
        self.exchange: Exchange | None = None
        """The inference request being received."""
        self.active: Any = None
        """The request whose turn it is: an Exchange, or uvicorn's cycle."""

    # Parser callbacks

    def data_received(self, data: bytes) -> None:
        if self.receiving == REFUSED:
            return
        self.arrived = len(data) + (self.arrived if self.receiving == HEAD else 0)
        super().data_received(data)
        if self.receiving == HEAD and self.arrived > self.limits.max_head_bytes:
            self.refuse(HeadersTooLarge(self.limits.max_head_bytes))

    def on_message_begin(self) -> None:
        if self.receiving == REFUSED:
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.exchange = None
        self.receiving = HEAD
        self.since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.receiving == REFUSED:
            return
        self.receiving = BODY
        self.since = 0.0
        if self.arrived > self.limits.max_head_bytes < sum(len(n) + len(v) for n, v in self.headers) + len(self.url):
            self.refuse(HeadersTooLarge(self.limits.max_head_bytes))
            return
        target = self.gateway.targets.get(self.url) or self._plain_target()
        if target is None or self.parser.get_method() != b"POST":
            self._fall_through()
            return
        headers = dict(self.headers)
        keep_alive = self.parser.should_keep_alive() and not self.gateway.draining
        exchange = self.exchange = Exchange(self, target, read_head(headers), keep_alive)
        self._take_turn(exchange)
        length = int(headers.get(b"content-length", b"0"))
        if length > self.limits.max_body_bytes:
            self._end_with(exchange, PayloadTooLarge(self.limits.max_body_bytes))
        elif b"expect" in headers and exchange.refusal is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif not length and b"transfer-encoding" not in headers and b"content-length" not in headers:
            exchange.refusal = LengthRequired()

    def on_body(self, body: bytes) -> None:
        if self.receiving == REFUSED:
            return
        exchange = self.exchange
        if exchange is None:
            super().on_body(body)
            return
        exchange.pieces.append(body)
        exchange.size += len(body)
        if exchange.size > self.limits.max_body_bytes:
            self._end_with(exchange, PayloadTooLarge(self.limits.max_body_bytes))

    def on_message_complete(self) -> None:
        if self.receiving == REFUSED:
            return
        self.receiving = IDLE
        self.since = 0.0
        exchange = self.exchange
        if exchange is None:
            super().on_message_complete()
            return
        pieces = exchange.pieces
        exchange.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        exchange.complete = True
        if exchange.has_turn:
            exchange.start()

    def _plain_target(self) -> Target | None:
        """The target of a path that is written otherwise: with a query, or percent-encoded."""
        if b"?" not in self.url and b"%" not in self.url:
            return None
        path = unquote_to_bytes(self.url.partition(b"?")[0])
        return self.gateway.targets.get(quote(path).encode())

    def _fall_through(self) -> None:
        """Let uvicorn hand the request to the ASGI application, as if it had parsed the head itself."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = (b"expect", b"100-continue") in ((n, v.lower()) for n, v in headers)
        super().on_headers_complete()
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
        if type(cycle) is Exchange:
            cycle.has_turn = True
            if cycle.complete:
                cycle.start()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As in uvicorn, but idle connections are found by the sweep instead of a timer each."""
        self.server_state.total_requests += 1
        self.since = 0.0
        self._go_on()

    def _go_on(self) -> None:
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            self.flow.pause_reading()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

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
        exchange = self.exchange
        if exchange is None:
            self._drop_unfinished_cycle()
            exchange = Exchange(self, None, Head(), False)
            self._take_turn(exchange)
        self._end_with(exchange, error)

    def _drop_unfinished_cycle(self) -> None:
        """The ASGI application won't get the rest of its request, nor answer it."""
        cycle = self.cycle
        if self.receiving == BODY and type(cycle) is not Exchange and not cycle.response_complete:
            if cycle.response_started or cycle is not self.active:
                self.transport.close()
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()

    def _end_with(self, exchange: "Exchange", error: NStarXError) -> None:
        self.receiving = REFUSED
        self.since = 0.0
        exchange.refusal = error
        exchange.keep_alive = False
        exchange.complete = True
        exchange.pieces.clear()
        if exchange.has_turn:
            exchange.start()

    # Time and ends

    def sweep(self, now: float) -> None:
        """Once a second: end what takes too long. Costs requests nothing."""
        if not self.since:
            self.since = now
            return
        waited = now - self.since
        if self.receiving == REFUSED:
            if waited > LINGER_S:
                self.transport.close()
        elif self.receiving == HEAD:
            self._time_out(waited, self.limits.head_timeout_s)
        elif self.receiving == BODY:
            self._time_out(waited, self.limits.body_timeout_s)
        elif (self.cycle is None or self.cycle.response_complete) and waited > self.limits.keep_alive_s:
            self.transport.close()

    def _time_out(self, waited: float, limit: float) -> None:
        if waited > limit:
            self.refuse(RequestTimeout(limit))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        if type(self.active) is Exchange:
            self.active.abandon()
