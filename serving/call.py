"""One request as it travels through a replica, and the lane end that waits for its answer."""

from collections.abc import Sequence
from typing import Protocol


class Caller(Protocol):
    """Where answers go: the replica's end of a lane, or a list in a test."""

    closed: bool

    def respond(
        self, call: "Call", status: int, body: bytes, json_length: int | None = None, valid: bool = True
    ) -> None:
        """Queue a complete answer; one that isn't `valid` holds what its signature does not allow."""

    def reply(self, call: "Call", body: bytes) -> None:
        """Write everything queued, and behind it a complete answer: 200, valid, JSON alone."""

    def reply_all(self, calls: Sequence["Call"], bodies: Sequence[bytes]) -> None:
        """The same for several calls, in one write."""

    def chunk(self, call: "Call", body: bytes) -> None:
        """Queue one partial result."""

    def end(self, call: "Call", status: int = 200) -> None:
        """Queue the end of a stream, and what it came to."""

    def expired(self, call: "Call") -> None:
        """Queue the news that the deadline passed before the run."""

    def overloaded(self, call: "Call") -> None:
        """Queue the news that there was no room."""

    def flush(self) -> None:
        """Write everything queued, at once."""

    async def drained(self) -> None:
        """Wait while the peer reads slower than is written."""


class Call:
    """A request frame that has arrived. Times are nanoseconds of `time.perf_counter_ns`; `expires` 0 means never."""

    __slots__ = ("arrived", "expires", "flags", "id", "json_length", "lane", "payload", "tag")

    def __init__(
        self, lane: Caller, id: int, payload: bytes, json_length: int | None, flags: int, arrived: int, expires: int
    ) -> None:
        self.lane = lane
        self.id = id
        self.payload = payload
        self.json_length = json_length
        self.flags = flags
        self.arrived = arrived
        self.expires = expires
        self.tag = b""
        """The client's id of the request as its answer holds it, where it was set apart (serving.codec.ids)."""
