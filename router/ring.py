"""A hash ring: which host a key belongs to, such that a host that comes or goes moves its own keys alone.

Consistent hashing (Karger et al. 1997) with virtual nodes, as in Ketama and Envoy's ring hash.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

VIRTUAL_NODES = 160
"""Points of each host: its share of the keys is right within some 8 %."""
POINT_BYTES = 8
POINTS_A_DIGEST = blake2b.MAX_DIGEST_SIZE // POINT_BYTES


def point_of(key: bytes) -> int:
    """Where a key lies on the ring: 64 bits of its BLAKE2b digest."""
    return int.from_bytes(blake2b(key, digest_size=POINT_BYTES).digest(), "big")


class Ring(NamedTuple):
    """Points in order, and the place (in the sequence of hosts it was made from) that each belongs to."""

    points: list[int]
    places: list[int]

    def place(self, point: int) -> int:
        """The first host at or after a point. Raises IndexError when the ring is empty."""
        at = bisect_left(self.points, point)
        return self.places[at if at < len(self.points) else 0]

    def walk(self, point: int) -> Iterator[int]:
        """Every host once, in the order in which the ring meets them from a point on."""
        at = bisect_left(self.points, point)
        yield from dict.fromkeys(chain(self.places[at:], self.places[:at]))


def ring_of(names: Iterable[str]) -> Ring:
    """The ring of hosts with these names; the same names in another order make the same assignment."""
    owned = sorted((point, place) for place, name in enumerate(names) for point in points_of(name))
    return Ring([point for point, _ in owned], [place for _, place in owned])


@lru_cache(maxsize=1024)
def points_of(name: str) -> tuple[int, ...]:
    """Where a host's virtual nodes lie. One digest yields several points."""
    digests = (blake2b(f"{name}/{n}".encode()).digest() for n in range(VIRTUAL_NODES // POINTS_A_DIGEST))
    return tuple(
        int.from_bytes(digest[at : at + POINT_BYTES], "big")
        for digest in digests
        for at in range(0, len(digest), POINT_BYTES)
    )
