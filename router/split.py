"""Weighted choice by counting: no dice, so that 10 % of 100 is ten."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import repeat
from math import lcm
from typing import TypeVar

T = TypeVar("T")


def turns(arms: Sequence[tuple[T, float]]) -> Iterator[T]:
    """Endless turns among arms with weights: each time, the arm that is furthest behind its share.

    Exact integer arithmetic, so that however long it runs, each arm's count stays within one of its share for two arms
    and within `len(arms) - 1` for more. Arms of weight 0 never have a turn. (Smooth weighted round-robin, as in nginx.)
    """
    weights = [(arm, Fraction(str(weight))) for arm, weight in arms if weight > 0]
    if len(weights) == 1:
        return repeat(weights[0][0])
    scale = lcm(*(weight.denominator for _, weight in weights))
    return _smooth([arm for arm, _ in weights], [int(weight * scale) for _, weight in weights])


def _smooth(arms: Sequence[T], weights: Sequence[int]) -> Iterator[T]:
    total, places = sum(weights), range(len(arms))
    credit = [0] * len(arms)
    while True:
        for place in places:
            credit[place] += weights[place]
        first = max(credit)
        place = credit.index(first)
        credit[place] = first - total
        yield arms[place]
