"""Sticky choice: a key always falls to the same arm, and new weights move as few keys as possible.

Two rules, for the gateway and for whoever must agree with it (batch, asynchronous work, another language):

`unit`: the 8 bytes of BLAKE2b (digest size 8, no key; RFC 7693) of salt, a zero byte, and key, read as a big-endian
number, modulo 1,000,000. A key is among p percent when its unit is below 10,000 p.

`compile_cohort`: for each arm, h is BLAKE2b in the same way of salt, a zero byte, the arm's name, a zero byte, and key.
The arm with the least -ln((h + 1) / 2^64) / weight wins: weighted rendezvous hashing, logarithmic method
(Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005). More weight for one arm moves keys to that arm
only, and none among the others; with two arms, every change of weights moves just the difference.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import log
from typing import Any, TypeVar

T = TypeVar("T")

UNITS = 1_000_000
UNITS_A_PERCENT = UNITS // 100
SCALE = 2.0**-64
LEAST_SHARE = 1e-18
"""Arms with less are left out: no hash of 64 bits would find them."""


def unit(key: bytes, salt: bytes) -> int:
    """Where a key stands among 1,000,000 places, evenly spread and independent between salts."""
    return int.from_bytes(_begun(salt, key).digest(), "big") % UNITS


def compile_cohort(
    arms: Sequence[tuple[T, float]], salt: bytes, name: Callable[[T], str] = str
) -> Callable[[bytes], T]:
    """What says to which arm a key falls. Raises ValueError when no weight is above 0, or two arms have one name.

    Names are what keys are tied to, in whatever order the arms come: arms called by version give each version other
    keys; arms called by role give the next candidate those of the last.
    """
    kept = _kept(arms)
    if len({name(arm) for arm, _ in kept}) < len(kept):
        raise ValueError("two arms have the same name")
    if len(kept) == 1:
        return lambda key, only=kept[0][0]: only  # type: ignore[misc]
    return _race([(arm, _begun(salt, name(arm).encode(), b""), 1.0 / weight) for arm, weight in kept])


def _kept(arms: Sequence[tuple[T, float]]) -> list[tuple[T, float]]:
    """Arms that can win, the heaviest of weight 1."""
    most = max((weight for _, weight in arms), default=0)
    if not most > 0:
        raise ValueError("at least one weight must be above 0")
    return [(arm, weight / most) for arm, weight in arms if weight / most > LEAST_SHARE]


def _race(runners: Sequence[tuple[T, Any, float]]) -> Callable[[bytes], T]:
    """The arm whose exponential clock rings first; its rate is the weight."""
    number = int.from_bytes

    def choose(key: bytes) -> T:
        best, winner = -1e300, runners[0][0]
        for arm, begun, mean in runners:
            state = begun.copy()
            state.update(key)
            score = log((number(state.digest(), "big") + 1) * SCALE) * mean
            if score > best:
                best, winner = score, arm
        return winner

    return choose


def _begun(*parts: bytes) -> Any:
    return blake2b(b"\0".join(parts), digest_size=8)
