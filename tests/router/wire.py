"""HTTP spoken byte by byte, for what no proper client would send."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

from router.gateway import Gateway
from router.protocol import InferenceProtocol
from serving.pace import Pace
from serving.replica import Replica
from tests.in_process import DataPlaneInProcess

PATIENCE_S = 10.0
"""A bound on a hang, not a timing."""

IRIS = "/v2/models/iris/infer"
ECHO = "/v2/models/echo/infer"
FLAKY = "/v2/models/flaky/infer"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> str:
        """The sentence of a V2 error object, which has nothing beside it."""
        document = self.json
        assert list(document) == ["error"], document
        assert "Traceback" not in document["error"]
        return str(document["error"])


class Wire:
    """One client connection."""

    def __init__(self, gateway: Gateway, receive_buffer: int = 0) -> None:
        self.gateway = gateway
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(("127.0.0.1", gateway.spec.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def send(self, *pieces: bytes) -> Self:
        for piece in pieces:
            self._socket.sendall(piece)
        return self

    def send_some(self, data: memoryview) -> int:
        """As many bytes as the other side takes at once; how many that was."""
        self._socket.setblocking(False)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        finally:
            self._socket.settimeout(PATIENCE_S)

    def answer(self, head: bool = False) -> Answer:
        """The next answer, whole; of a stream, all until its end."""
        line = self._file.readline()
        assert line, "the connection was closed without an answer"
        headers: dict[str, str] = {}
        while (header := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length")
        body = b"" if head else self._file.read(int(length)) if length else self._file.read()
        return Answer(int(line.split()[1]), headers, body)

    def line(self) -> bytes:
        return self._file.readline()

    def is_closed(self) -> bool:
        """True once the server has closed; whatever it still said is an error."""
        try:
            rest = self._file.read()
        except ConnectionResetError:
            return True
        assert rest == b"", rest
        return True

    def is_closed_after_sending(self, rest: bytes) -> bool:
        """True once the server has closed, though the client goes on sending."""
        try:
            self.send(rest)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return self.is_closed()

    def is_usable(self) -> bool:
        return self.send(post(IRIS, iris())).answer().status == 200

    def leave(self) -> None:
        """Say no more."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def iris(rows: int = 1, **parts: Any) -> bytes:
    data = [5.1, 3.5, 1.4, 0.2] * rows
    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}
    return orjson.dumps({"inputs": [tensor], **parts})


def flaky(*values: float) -> bytes:
    tensor = {"name": "x", "shape": [len(values) or 1], "datatype": "FP32", "data": values or (1.0,)}
    return orjson.dumps({"inputs": [tensor]})


def post(path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    """A request with its Content-Length."""
    return request("POST", path, f"Content-Length: {len(body)}", *headers, version=version) + body


def request(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    """A request's head."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: test", *headers, "", ""]).encode("latin-1")


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def connections(gateway: Gateway) -> list[InferenceProtocol]:
    ends = gateway._servers[0][0].server_state.connections.copy()
    return [end for end in ends if isinstance(end, InferenceProtocol)]


def connection(wire: Wire) -> InferenceProtocol:
    """The server's end of a connection, as soon as it is there."""
    for _ in range(1000):
        for end in connections(wire.gateway):
            if end.client and end.client[1] == wire.port:
                return end
        time.sleep(0.01)
    raise AssertionError("the server has no such connection")


def in_loop(plane: DataPlaneInProcess, action: Callable[[], Any]) -> Any:
    """Do something on the data plane's own loop."""

    async def act() -> Any:
        return action()

    return plane.call(act())


@contextlib.contextmanager
def hanging(plane: DataPlaneInProcess) -> Iterator[Replica]:
    """While open, runs of the replica of `flaky` don't end; in a thread, so that its lanes stay alive."""
    replica = next(replica for replica in plane.replicas if replica.ref.model == "flaky")

    def hang(true: bool) -> None:
        replica.batcher.pace = Pace()
        replica.runtime.reconfigure({"hang": true})

    in_loop(plane, lambda: hang(True))
    try:
        yield replica
    finally:
        in_loop(plane, lambda: hang(False))


def later(plane: DataPlaneInProcess, wire: Wire, seconds: float) -> None:
    """Let this much time pass for one connection."""
    end = connection(wire)

    def sweep() -> None:
        end.sweep(1e9)
        end.sweep(1e9 + seconds)

    in_loop(plane, sweep)


def codes(gateway: Gateway, ref: str, role: str = "primary") -> dict[int, int]:
    """How a version's calls have ended, over all routes."""
    sums: dict[int, int] = {}
    for tally in gateway.compiler.tallies.values():
        if tally.ref == ref and tally.role == role:
            for code, count in tally.codes.items():
                sums[code] = sums.get(code, 0) + count
    return sums


def in_flight(gateway: Gateway) -> int:
    return sum(tally.started - sum(tally.codes.values()) for tally in gateway.compiler.tallies.values())
