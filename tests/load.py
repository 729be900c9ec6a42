"""A bounded load on loopback: keep-alive clients that send inference requests and remember every answer."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

IRIS = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'
CLIENTS = 8


class Load:
    """What clients saw. `failed` holds everything that was not a 200: statuses, or the kind of a broken connection."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        """Version to good answers."""
        self.failed: Counter[str] = Counter()
        self._stop = threading.Event()

    @property
    def total(self) -> int:
        return self.answered.total() + self.failed.total()

    async def run(self, port: int, path: str, body: bytes, most: int) -> None:
        """Keep `CLIENTS` clients busy until stopped, or until `most` answers."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        request = f"{head}\r\n\r\n".encode() + body
        await asyncio.gather(*(self._client(port, request, most) for _ in range(CLIENTS)))

    async def _client(self, port: int, request: bytes, most: int) -> None:
        while not self._stop.is_set() and self.total < most:
            try:
                await self._connection(port, request, most)
            except OSError as error:
                self.failed[type(error).__name__] += 1
            except asyncio.IncompleteReadError:
                self.failed["connection closed without an answer"] += 1

    async def _connection(self, port: int, request: bytes, most: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            closing = False
            while not self._stop.is_set() and self.total < most and not closing:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
                await reader.readexactly(int(headers[b"content-length"]))
                closing = headers.get(b"connection") == b"close"
                self._note(head[9:12].decode(), headers.get(b"x-nstarx-version", b"").decode())

    def _note(self, status: str, version: str) -> None:
        if status == "200":
            self.answered[version] += 1
        else:
            self.failed[status] += 1

    def stop(self) -> None:
        self._stop.set()


@contextlib.contextmanager
def load(port: int, path: str = "/v2/models/iris/infer", body: bytes = IRIS, most: int = 200_000) -> Iterator[Load]:
    """Load from a thread of its own while the block runs; it has begun to be answered when the block starts."""
    running = Load()
    thread = threading.Thread(target=lambda: asyncio.run(running.run(port, path, body, most)), daemon=True)
    thread.start()
    begun = threading.Event()
    for _ in range(1000):
        if running.total > 2 * CLIENTS:
            break
        begun.wait(0.01)
    try:
        yield running
    finally:
        running.stop()
        thread.join(timeout=30)
