"""Heads of requests that were parsed before: clients that keep a connection send the same one again and again."""

from typing import NamedTuple

from router.head import Head
from router.table import Target

MOST, LONGEST = 1024, 4096
"""Heads, and bytes of one, that are remembered."""


class KnownHead(NamedTuple):
    """What a head was parsed to. Only plain ones are remembered: a body of known length follows, on a connection that
    stays open."""

    target: Target
    head: Head
    length: int
    request_id: bytes
    headers: dict[bytes, bytes]
    url: bytes


class Heads(dict[bytes, KnownHead]):
    """A head's bytes to what they mean. Equal bytes mean the same, so nothing is read from them twice."""

    def learn(self, head: bytes, known: KnownHead) -> None:
        """Remember one more; all are forgotten when they are too many, for clients that never repeat one."""
        if len(head) > LONGEST:
            return
        if len(self) >= MOST:
            self.clear()
        self[head] = known
