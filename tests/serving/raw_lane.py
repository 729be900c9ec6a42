"""A gateway's end of a lane in the hands of a test, which may send whatever it likes; and a server to send it to."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from cluster.frames import HEADER, NO_JSON_LENGTH, NONCE_BYTES, PREFACE, Frame, FrameReader, Kind, hello, pack, proof
from cluster.records import ReplicaRecord
from nstarx.spec.model import ModelSpec
from serving.lanes import HANDSHAKE_S, LaneServer
from serving.traces import Traces
from tests.serving.doubles import Obedient, Rows, batcher, request, rows_of, spec

REF = "sample@1.0.0"
KEY = b"k" * 32
NODE = "node-1"


@dataclass
class Served:
    """A lane server that listens, and what is behind it."""

    lanes: LaneServer
    runtime: Obedient
    address: str

    def record(self, **parts: str) -> ReplicaRecord:
        known = {"replica": "r1", "ref": REF, "node": NODE, "key": KEY.hex()}
        return ReplicaRecord(addresses=(self.address,), **{**known, **parts})


@contextlib.asynccontextmanager
async def serving(
    place: Path | str,
    runtime: Obedient | None = None,
    model: ModelSpec | None = None,
    on_loop: bool = True,
    handshake_s: float = HANDSHAKE_S,
    traces: Traces | None = None,
) -> AsyncIterator[Served]:
    """A replica's lanes and batcher, listening on the Unix socket or host that `place` names."""
    runtime = runtime or Obedient()
    batches = batcher(runtime, model or spec(), on_loop=on_loop, traces=traces)
    lanes = LaneServer(REF, KEY, batches, batches.counters.as_dict, handshake_s)
    listen = lanes.listen_unix(str(place)) if isinstance(place, Path) else lanes.listen_tcp(place)
    try:
        yield Served(lanes, runtime, await listen)
    finally:
        await lanes.drain(0)
        await batches.close(0)


class RawLane:
    """A connection that speaks in frames, or in any other bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(1 << 30)
        self._arrived: list[Frame] = []

    @classmethod
    async def dial(cls, address: str) -> "RawLane":
        scheme, _, place = address.partition(":")
        if scheme == "unix":
            return cls(*await asyncio.open_unix_connection(place))
        host, _, port = place.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    @classmethod
    async def greeted(cls, address: str) -> "RawLane":
        """A lane whose handshake is done."""
        lane = await cls.dial(address)
        await lane.greet()
        return lane

    async def greet(self, key: bytes = KEY, ref: str = REF) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        challenge = await self.challenge()
        self.send(PREFACE + pack(Kind.HELLO, payload=hello(key, nonce, challenge, ref)))
        ready = await self.frame()
        assert ready[1] == Kind.READY, ready
        assert ready[-1] == proof(key, b"replica", challenge, nonce, ref.encode())

    async def challenge(self) -> bytes:
        frame = await self.frame()
        assert frame[1] == Kind.CHALLENGE
        return frame[-1]

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def frame(self) -> Frame:
        """The next frame. A bound on a hang, not a timing."""
        async with asyncio.timeout(5):
            while not self._arrived:
                data = await self._reader.read(1 << 16)
                if not data:
                    self.hang_up()
                    raise EOFError("the replica ended the lane")
                self._arrived += self._frames.feed(data)
        return self._arrived.pop(0)

    async def rest(self) -> list[Frame]:
        """Every frame until the replica ends the lane."""
        frames = []
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                frames.append(await self.frame())
        return frames

    async def refusal(self) -> str:
        """The sentence with which the replica ends the lane."""
        *_, last = await self.rest()
        assert last[1] == Kind.GOAWAY
        return last[-1].decode()

    async def ask(self, id: int, *rows: list[float]) -> Rows:
        """The rows of the answer to a request of these rows."""
        self.send(request_frame(id, request(*rows)))
        return answer_of(await self.frame(), id)

    def hang_up(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


def request_frame(id: int, body: bytes, flags: int = 0, wait_ms: int = 0, json: int = NO_JSON_LENGTH) -> bytes:
    return HEADER.pack(len(body), Kind.REQUEST, flags, 0, id, wait_ms, json) + body


def answer_of(frame: Frame, id: int) -> Rows:
    assert (frame[1], frame[3], frame[4]) == (Kind.RESPONSE, 200, id), frame
    return rows_of(orjson.loads(frame[-1]))
