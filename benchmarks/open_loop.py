"""Load that doesn't wait for answers: requests leave when it is their time, whatever became of those before."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

PATIENCE_S = 10.0
"""How long the last answers of a block may take."""


@dataclass
class Block:
    """What came of one stretch of load."""

    latencies: list[float] = field(default_factory=list)
    """In seconds, from when a request was due to its whole answer."""
    failed: int = 0
    """Answers other than 200."""
    open: int = 0
    """Requests without an answer yet."""


class Connection(asyncio.Protocol):
    """One connection, with one request in flight at most."""

    def __init__(self, owner: "Connections") -> None:
        self._owner = owner
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, due: float, block: Block) -> None:
        self._due, self._block = due, block
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = self._received[:end].lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + length:
            self._block.latencies.append(time.perf_counter() - self._due)
            self._block.failed += not head.startswith(b"http/1.1 200")
            self._block.open -= 1
            self._received = b""
            self._owner.free(self)

    def close(self) -> None:
        self._transport.close()


class Connections:
    """A number of connections to one port."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._all: list[Connection] = []
        self._free: deque[Connection] = deque()
        self._waiting: deque[tuple[bytes, float, Block]] = deque()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            self._all.append(connection)
        self._free.extend(self._all)
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    async def run(self, request: bytes, rate: float, seconds: float, random: Random) -> Block:
        """Send a request at random moments (Poisson), and wait for the last answer. Raises TimeoutError."""
        block, due = Block(), time.perf_counter()
        end = due + seconds
        while (due := due + random.expovariate(rate)) < end:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            block.open += 1
            # The timer's own lateness is the load generator's, not the server's.
            self._send(request, time.perf_counter(), block)
        async with asyncio.timeout(PATIENCE_S):
            while block.open:  # noqa: ASYNC110 - once a block
                await asyncio.sleep(0.005)
        return block

    def _send(self, request: bytes, due: float, block: Block) -> None:
        if self._free:
            self._free.popleft().ask(request, due, block)
        else:
            self._waiting.append((request, due, block))

    def free(self, connection: Connection) -> None:
        """A connection has its answer: it takes what has waited longest, from when that was due."""
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._free.append(connection)
