"""Counters keyed by values that callers choose, in bounded memory, that merge in any order to the same result.

Kept are the `limit` first keys, short ones before long ones, then in alphabetical order; the rest is counted together.
A key that is kept in the end was among the first at every step before, so none of its counts was ever folded away:
the result depends only on what was counted, not on where or in which order. Short first, because categories are
shorter than ids.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

OTHER = "(other)"
"""The key of what isn't kept; it doesn't count towards a limit."""

V = TypeVar("V")


def count(counts: dict[str, V], key: str, value: V, limit: int, add: Callable[[V, V], V]) -> None:
    """Add `value` to a key's. `add` returns a new value, and leaves its arguments as they are."""
    counts[key] = add(counts[key], value) if key in counts else value
    if len(counts) - (OTHER in counts) > limit:
        last = max((kept for kept in counts if kept != OTHER), key=_shortest_first)
        folded = counts.pop(last)
        counts[OTHER] = add(counts[OTHER], folded) if OTHER in counts else folded


def merge(counts: dict[str, V], others: Mapping[str, V], limit: int, add: Callable[[V, V], V]) -> None:
    """Add all of `others` to `counts`."""
    for key, value in others.items():
        count(counts, key, value, limit, add)


def _shortest_first(key: str) -> tuple[int, str]:
    return len(key), key
