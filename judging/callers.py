"""Which callers have been counted: a set of fixed size that never takes a new one for two (Bloom 1970).

It forgets nobody, and takes a few new callers for known ones: one in a thousand at 850,000 callers, one in fifty at two
million. Who is left out so is left out by chance, whatever his arm.
"""

from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import Self
from zlib import compress, decompress

BITS = 1 << 24
HASHES = 4
FULL = BITS // 2
"""Bits set at which nobody is added any more: one in sixteen would be taken for a known one."""


class Callers:
    """Two megabytes, once there is somebody."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._set = 0

    def add(self, assignment: str) -> bool:
        """True when the assignment is new, as far as can be said; False when it is known, or there is no room."""
        if self._set >= FULL:
            return False
        bits = self._bits = self._bits or bytearray(BITS // 8)
        before = self._set
        for place in _places(assignment):
            bit = 1 << (place & 7)
            if not bits[place >> 3] & bit:
                bits[place >> 3] |= bit
                self._set += 1
        return self._set > before

    def to_json(self) -> str:
        return b64encode(compress(self._bits, 1)).decode()

    @classmethod
    def from_json(cls, document: str) -> Self:
        restored = cls()
        restored._bits = bytearray(decompress(b64decode(document)))
        restored._set = int.from_bytes(restored._bits, "little").bit_count()
        return restored

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Callers) and self._bits == other._bits


def _places(assignment: str) -> list[int]:
    digest = blake2b(assignment.encode(), digest_size=3 * HASHES).digest()
    return [int.from_bytes(digest[at : at + 3], "little") for at in range(0, len(digest), 3)]
