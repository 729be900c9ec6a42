"""Regular expressions in configuration: those that no request can make slow."""

import re
from itertools import accumulate, repeat
from math import inf
from operator import mul
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

LONGEST_PATTERN = 256
LONGEST_SUBJECT = 512
"""Bytes of a value that a pattern is tried on; a longer one does not match."""
MOST_STEPS = 1 << 21
"""About 3 ms in the worst case."""


def valid_pattern(pattern: str) -> str:
    """A pattern of Python's `re` that takes at most MOST_STEPS on any value. Raises ValueError with what to do."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"the pattern has {len(pattern)} characters; {LONGEST_PATTERN} are allowed")
    try:
        re.compile(pattern)
        steps = _sequence(parser.parse(pattern)).total
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
    if steps > MOST_STEPS:
        raise ValueError(
            f"'{pattern}' could take very long on some values; repeat fewer parts, or without going back: (?>…), *+, ++"
        )
    return pattern


class _Effort(NamedTuple):
    """Bounds for a matcher that goes back (sre): of steps within a part, and of ways in which the part can match."""

    steps: float
    ways: float

    @property
    def total(self) -> float:
        return self.steps + self.ways


ONE = _Effort(1, 1)
REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}
INNER = {"ATOMIC_GROUP": 0, "ASSERT": 1, "ASSERT_NOT": 1}
"""Where parts that match in one way only keep what they hold."""
SINGLE = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "CATEGORY"}


def _sequence(parts: Any) -> _Effort:
    """What follows a part is tried once for each way in which the part can match."""
    steps, ways = 0.0, 1.0
    for part in parts:
        effort = _part(str(part[0]), part[1])
        steps, ways = steps + ways * effort.steps, ways * effort.ways
    return _Effort(steps, ways)


def _part(kind: str, held: Any) -> _Effort:
    if kind in SINGLE:
        return ONE
    if kind == "GROUPREF":
        return _Effort(LONGEST_SUBJECT, 1)
    if kind == "SUBPATTERN":
        return _sequence(held[-1])
    if kind == "BRANCH":
        return _either(held[1])
    if kind == "GROUPREF_EXISTS":
        return _either([branch for branch in held[1:] if branch])
    if kind in REPEATS:
        return _repeated(held[0], held[1], _sequence(held[2]))
    if kind == "POSSESSIVE_REPEAT":
        return _Effort(_times(held[1]) * _sequence(held[2]).total, 1)
    if kind in INNER:
        return _Effort(_sequence(held if kind == "ATOMIC_GROUP" else held[1]).total, 1)
    return _Effort(inf, inf)


def _either(branches: Any) -> _Effort:
    efforts = [_sequence(branch) for branch in branches]
    return _Effort(sum(effort.steps for effort in efforts), sum(effort.ways for effort in efforts))


def _repeated(least: int, most: int, inner: _Effort) -> _Effort:
    times = _times(most)
    if inner.ways == 1:
        return _Effort(inner.steps * times, max(times - least, 0) + 1)
    powers = list(accumulate(repeat(inner.ways, times), mul, initial=1.0))
    return _Effort(inner.steps * sum(powers), max(sum(powers[least:]), 1))


def _times(most: int) -> int:
    return min(int(most), LONGEST_SUBJECT)
