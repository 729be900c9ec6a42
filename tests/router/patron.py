"""A waiter for answers of a lane, in the hands of a test."""

import orjson

from cluster.frames import NO_JSON_LENGTH
from tests.serving.doubles import Rows, request, rows_of


class Patron:
    """A waiter that writes down what it hears."""

    def __init__(self, *rows: list[float], flags: int = 0, wait_ms: int = 0, body: bytes | None = None) -> None:
        self.body = request(*rows) if body is None else body
        self.flags = flags
        self.json = NO_JSON_LENGTH
        self.wait_ms = wait_ms
        self.heard: list[str] = []
        self.status = 0
        self.answer = b""

    def on_response(self, status: int, flags: int, json: int, body: bytes) -> None:
        self.status, self.answer = status, body
        self.heard.append("response")

    def on_chunk(self, body: bytes) -> None:
        self.heard.append("chunk")

    def on_end(self, status: int) -> None:
        self.heard.append("end")

    def on_expired(self) -> None:
        self.heard.append("expired")

    def on_overloaded(self) -> None:
        self.heard.append("overloaded")

    def on_lane_lost(self) -> None:
        self.heard.append("lost")

    @property
    def rows(self) -> Rows:
        assert self.status == 200
        return rows_of(orjson.loads(self.answer))
