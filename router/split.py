"""Weighted choice by counting: no dice, so that 10 % of 100 is ten; and no rhythm that a client could fall in with."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import chain, count
from math import lcm
from random import Random
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

BLOCK = 64
"""Turns decided at once: enough to make one turn cheap, few enough for no request to notice that it began a block."""
LEAST_SHARE = 1e-18
"""At a million requests a second, an arm with less would have its first turn in 30,000 years."""


def turns(arms: Sequence[tuple[T, float]], seed: int = 0) -> Iterator[T]:
    """Endless turns among arms with weights, exact in number and irregular in order.

    However long it runs, each arm's count stays within one of its share for two arms, within `len(arms) - 1` for more,
    and never 4 away. Over all seeds, every single turn is an arm's with a chance that is its share, so that a caller
    who takes each k-th turn gets the shares too. Arms of weight 0 never have a turn. docs/decisions/0006 has the proof.
    """
    source = _tree(_whole([(arm, Fraction(str(weight))) for arm, weight in arms]), Random(seed))
    return chain.from_iterable(iter(partial(source.take, BLOCK), []))


def _whole(arms: Sequence[tuple[T, Fraction]]) -> list[tuple[T, int]]:
    """The same shares in whole numbers, less those too small to matter."""
    total = sum(weight for _, weight in arms)
    kept = [(arm, weight) for arm, weight in arms if weight > total * Fraction(LEAST_SHARE)]
    scale = lcm(*(weight.denominator for _, weight in kept))
    return [(arm, int(weight * scale)) for arm, weight in kept]


class _Source(Protocol[T]):
    def take(self, number: int) -> list[T]:
        """The next turns."""


def _tree(arms: Sequence[tuple[T, int]], random: Random) -> _Source[T]:
    """Huffman's tree: the two lightest become one until one is left. So no inner node has more than twice the weight of
    its sibling, which bounds how errors add up on the way down."""
    order = count()
    heap: list[tuple[int, int, _Source[T]]] = [(weight, next(order), _Alone(arm)) for arm, weight in arms]
    heapify(heap)
    while len(heap) > 1:
        (light, _, rare), (heavy, _, common) = heappop(heap), heappop(heap)
        heappush(heap, (light + heavy, next(order), _Pair(common, rare, _places(light, light + heavy, random))))
    return heap[0][2]


class _Alone(Generic[T]):
    """One arm, which has every turn."""

    def __init__(self, arm: T) -> None:
        self._arm = arm

    def take(self, number: int) -> list[T]:
        return [self._arm] * number


class _Pair(Generic[T]):
    """Two sources: the rare one has the turns that `places` names, the common one has the others."""

    def __init__(self, common: _Source[T], rare: _Source[T], places: Iterator[int]) -> None:
        self._common, self._rare, self._next = common, rare, places.__next__
        self._begin = 0
        self._place = next(places)

    def take(self, number: int) -> list[T]:
        places = self._places(number)
        taken = self._common.take(number - len(places))
        for place, arm in zip(places, self._rare.take(len(places)), strict=True):
            taken.insert(place, arm)
        return taken

    def _places(self, number: int) -> list[int]:
        """Those among the next turns, counted from the first of them."""
        begin, place, next_place = self._begin, self._place, self._next
        self._begin = end = begin + number
        places = []
        while place < end:
            places.append(place - begin)
            place = next_place()
        self._place = place
        return places


def _places(weight: int, total: int, random: Random) -> Iterator[int]:
    """Which turns are the rare one's: one in each stretch of `total / weight` turns (Deville's systematic sampling).

    Turns have length 1 on a line, stretches are laid end to end, and each has its turn where a random point of it lies.
    The turn across a border could be hit from both sides: it is left out where it has been, likelier where it has not,
    so that it is hit once at most and with the same chance as every other. Floats are chances only; borders are exact.
    """
    draw, length, (whole, part) = random.random, total / weight, divmod(total, weight)
    place, first, before, begin = -1, 0, 0, 0.0
    """`first`: the turn in which the stretch begins; `before`, `begin`: how much of it belongs to the last stretch."""
    while True:
        following, after = whole, before + part
        if after >= weight:
            following, after = whole + 1, after - weight
        point = begin + draw() * (length - begin)
        if place == first or (before and point >= 1.0):
            point = 1.0 + draw() * (begin + length - 1.0)
        step = int(point)
        if step >= following and (step > following or not after):
            step = following if after else following - 1  # a float has been rounded across the border
        place = first + step
        yield place
        first += following
        before, begin = after, after / weight
