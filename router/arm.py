"""An arm: one version as one route uses it, in one role."""

from router.admitting import Gate
from router.fuse import Fuse
from router.hedging import Hedging
from router.lanes import Backend
from router.pool import Pool
from router.tally import Tally


class Arm:
    """One version as one route uses it."""

    __slots__ = (
        "backend",
        "balancer",
        "demoted",
        "fuse",
        "gate",
        "head",
        "healths",
        "hedging",
        "pool",
        "ref",
        "rescuer",
        "role",
        "role_line",
        "stands_by",
        "tally",
        "weight",
    )

    def __init__(self, backend: Backend, tally: Tally, weight: float, pool: Pool | None = None) -> None:
        """`pool` is by the route's policy; without one, the version's usual is."""
        self.backend = backend
        self.pool = pool or backend.usual
        self.balancer = self.pool.balancer
        """What says which replica is asked."""
        self.healths = self.pool.healths
        """What is told of good answers, by replica."""
        self.tally = tally
        self.weight = weight
        """In proportion to the other arms', demotions taken into account."""
        self.ref = backend.ref
        self.role = tally.role
        self.role_line = f"x-nstarx-role: {self.role}\r\n".encode()
        self.demoted = False
        """Its weight is 0 because it was demoted."""
        self.stands_by = False
        """Answers for others that have no replica, also without a weight of its own."""
        self.gate: Gate | None = None
        """What lets requests in as the version can take them; None lets all in."""
        self.hedging: Hedging | None = None
        """What asks a second replica beside the first, where the route does."""
        self.fuse: Fuse | None = None
        """What is told of its failures; None where nobody watches it."""
        self.rescuer: Arm | None = None
        """What answers for it where it fails, if anything does."""
        self.head = _head(self.ref, self.role)
        """Beginning of the head of its good answers, up to the value of Content-Length."""


def _head(ref: str, role: str) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nx-nstarx-version: {ref}\r\nx-nstarx-role: {role}\r\n"
        "content-type: application/json\r\ncontent-length: "
    ).encode()
