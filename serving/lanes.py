"""The replica's end of lanes: a server for gateways, on a Unix socket and on TCP."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from cluster.frames import (
    FLAG_INVALID,
    FLAG_TRACE,
    HANDSHAKE_LIMIT,
    HEADER,
    NO_JSON_LENGTH,
    NONCE_BYTES,
    PREFACE,
    FrameReader,
    Kind,
    check_hello,
    pack,
    proof,
)
from cluster.keepalive import keep_alive
from cluster.trace_context import PLACE_BYTES, unpack_place
from nstarx.errors import LaneError
from serving.batcher import Batcher
from serving.call import Call
from serving.compression import WORTHWHILE, deflate

log = logging.getLogger("nstarx.lanes")

PAYLOAD_LIMIT = 1 << 30
"""Bytes in one frame from a gateway that has proved who it is; gateways bound bodies far below."""
REQUEST, RESPONSE = int(Kind.REQUEST), int(Kind.RESPONSE)
"""Plain numbers, for the hot path."""
HANDSHAKE_S = 5.0
"""A gateway that takes longer to prove who it is is sent away."""


class Lane(asyncio.Protocol):
    """One gateway's connection. Requests read together go to the batcher together."""

    def __init__(self, server: "LaneServer") -> None:
        self.closed = False
        self.ready = False
        self._server = server
        self._challenge = secrets.token_bytes(NONCE_BYTES)
        self._reader = FrameReader(HANDSHAKE_LIMIT)
        self._outbox: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        keep_alive(transport)
        self._server.lanes.add(self)
        self._deadline = asyncio.get_running_loop().call_later(self._server.handshake_s, self._late)
        transport.write(PREFACE + pack(Kind.CHALLENGE, payload=self._challenge))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._deadline.cancel()
        self._writable.set()
        self._server.left(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        calls: list[Call] = []
        try:
            self._read(data, calls)
        except LaneError as error:
            log.warning("lane refused: %s", error, extra={"action": "lane_refused"})
            self.refuse(error.sentence)
        except Exception:
            log.exception("lane broken", extra={"action": "lane_broken"})
            self.refuse("this replica failed to read the lane; its log says why")
        if calls:
            self._server.batcher.add(calls, alone=len(self._server.lanes) == 1)

    def _late(self) -> None:
        if not self.ready:
            self.refuse(f"the handshake took longer than {self._server.handshake_s:g} s")

    def _read(self, data: bytes, calls: list[Call]) -> None:
        arrived = time.perf_counter_ns()
        for _, kind, flags, _, id, wait, json, payload in self._reader.feed(data):
            if kind == REQUEST and self.ready:
                expires = arrived + wait * 1_000_000 if wait else 0
                call = Call(self, id, payload, None if json == NO_JSON_LENGTH else json, flags, arrived, expires)
                if flags & FLAG_TRACE:
                    self._trace(call)
                calls.append(call)
            elif not self.ready:
                self._greet(kind, payload)
            else:
                self._control(kind, id)

    def _trace(self, call: Call) -> None:
        """Take the call's place in its trace from its payload."""
        place, call.payload = call.payload[:PLACE_BYTES], call.payload[PLACE_BYTES:]
        if len(place) < PLACE_BYTES:
            raise LaneError(f"a traced request has at least {PLACE_BYTES} bytes")
        call.flags &= ~FLAG_TRACE
        self._server.batcher.traces.begin(call, unpack_place(place))

    def _greet(self, kind: int, payload: bytes) -> None:
        server = self._server
        if kind != Kind.HELLO:
            raise LaneError("the first frame must be HELLO")
        nonce = check_hello(server.key, self._challenge, server.ref, payload)
        self.ready = True
        self._reader.limit = PAYLOAD_LIMIT
        self._deadline.cancel()
        answer = proof(server.key, b"replica", self._challenge, nonce, server.ref.encode())
        self._transport.write(pack(Kind.READY, payload=answer))

    def _control(self, kind: int, id: int) -> None:
        if kind == Kind.CANCEL:
            self._server.batcher.withdraw(self, id)
        elif kind == Kind.PING:
            self._transport.write(pack(Kind.PONG, id))
        elif kind == Kind.STATS:
            self._transport.write(
                pack(Kind.COUNTERS, id, orjson.dumps(self._server.report(), option=orjson.OPT_NON_STR_KEYS))
            )
        else:
            raise LaneError(f"a gateway doesn't send frames of kind {kind}")

    def refuse(self, why: str) -> None:
        """Say why, and end the connection."""
        if not self._transport.is_closing():
            self._transport.write(pack(Kind.GOAWAY, payload=why.encode()))
            self._transport.close()
        self.closed = True

    # Caller

    def respond(self, call: Call, status: int, body: bytes, json_length: int | None = None, valid: bool = True) -> None:
        body, flags = deflate(body, call.flags) if call.flags and len(body) >= WORTHWHILE else (body, 0)
        if not valid:
            flags |= FLAG_INVALID
        json = NO_JSON_LENGTH if json_length is None else json_length
        self._outbox += HEADER.pack(len(body), RESPONSE, flags, status, call.id, 0, json), body

    def reply(self, call: Call, body: bytes) -> None:
        if self._outbox or (call.flags and len(body) >= WORTHWHILE):
            self.respond(call, 200, body)
            self.flush()
        elif not self._transport.is_closing():
            self._transport.write(HEADER.pack(len(body), RESPONSE, 0, 200, call.id, 0, NO_JSON_LENGTH) + body)

    def reply_all(self, calls: Sequence[Call], bodies: Sequence[bytes]) -> None:
        outbox, pack_header = self._outbox, HEADER.pack
        for call, body in zip(calls, bodies, strict=True):
            if call.flags and len(body) >= WORTHWHILE:
                self.respond(call, 200, body)
            else:
                outbox += pack_header(len(body), RESPONSE, 0, 200, call.id, 0, NO_JSON_LENGTH), body
        self.flush()

    def chunk(self, call: Call, body: bytes) -> None:
        self._outbox.append(pack(Kind.CHUNK, call.id, body))

    def end(self, call: Call, status: int = 200) -> None:
        self._outbox.append(pack(Kind.END, call.id, status=status))

    def expired(self, call: Call) -> None:
        self._outbox.append(pack(Kind.EXPIRED, call.id))

    def overloaded(self, call: Call) -> None:
        self._outbox.append(pack(Kind.OVERLOADED, call.id))

    def flush(self) -> None:
        if self._outbox and not self._transport.is_closing():
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    async def drained(self) -> None:
        await self._writable.wait()

    def goaway(self) -> None:
        """Ask the gateway to send no more; it closes the lane when its last answer has come."""
        self._transport.write(pack(Kind.GOAWAY, payload=b"draining"))

    def abort(self) -> None:
        self._transport.abort()


class LaneServer:
    """Listens for gateways and knows their lanes."""

    def __init__(
        self,
        ref: str,
        key: bytes,
        batcher: Batcher,
        report: Callable[[], dict[str, Any]],
        handshake_s: float = HANDSHAKE_S,
    ) -> None:
        self.ref = ref
        self.key = key
        self.batcher = batcher
        self.report = report
        self.handshake_s = handshake_s
        self.lanes: set[Lane] = set()
        self._servers: list[asyncio.Server] = []
        self._deserted = asyncio.Event()

    async def listen_unix(self, path: str) -> str:
        """Listen on a Unix socket; its address as registered."""
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(lambda: Lane(self), path, backlog=512))
        return f"unix:{path}"

    async def listen_tcp(self, host: str, port: int = 0) -> str:
        """Listen on TCP, on a free port unless one is given; the address as registered."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Lane(self), host, port, backlog=512)
        self._servers.append(server)
        return f"tcp:{host}:{server.sockets[0].getsockname()[1]}"

    async def drain(self, timeout_s: float) -> None:
        """Stop taking lanes, ask gateways to leave, and wait until the last answer has gone out."""
        for server in self._servers:
            server.close()
        self._deserted.clear()
        for lane in list(self.lanes):
            lane.goaway()
        if self.lanes:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._deserted.wait(), timeout_s)
        for lane in list(self.lanes):
            lane.abort()

    def left(self, lane: Lane) -> None:
        """A lane is gone."""
        self.lanes.discard(lane)
        self.batcher.forsake(lane)
        if not self.lanes:
            self._deserted.set()
