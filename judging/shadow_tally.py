"""What a shadow has shown so far: counters that gateways keep, send as JSON, and that merge in any order."""

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from operator import add
from typing import Any

from judging.bounded import count, merge
from judging.comparison import Comparison, Difference, Outcome
from judging.differences import Classes, Numbers
from judging.shadow_examples import Example, Pair, kept_with, most_different
from nstarx.histogram import BUCKETS, bucket_of, merged
from nstarx.spec.shadow import ShadowSpec

MAX_CLASSES = 32
"""Classes of one output that are told apart, in rows and in columns of its confusion."""
MAX_VALUES = 50
"""Values of one attribute that are told apart."""
VALUE_LENGTH = 64
"""Characters of an attribute's value that are kept."""
NO_VALUE = "(none)"
"""The value of a request without the header."""

Slice = tuple[int, int, int, int]
"""Of one value of an attribute: requests that the primary answered, the shadow failed; pairs compared, mismatched."""


class Drop(StrEnum):
    """Why a request that was to be copied was never sent to the shadow."""

    in_flight = "in_flight"
    """`max_in_flight` copies were under way."""
    memory = "memory"
    """All copies together held as many bytes as they may."""
    busy = "busy"
    """The gateway, or the primary's replica, had too much to do."""
    full = "full"
    """The shadow's replicas had half of what they may have; the other half is for requests that somebody waits for."""
    no_replica = "no_replica"
    """The shadow's version has no replica."""


_TIMED = frozenset((Outcome.compared, Outcome.answered))
_ANSWERED = frozenset((Outcome.compared, Outcome.answered, Outcome.shadow_failed))


@dataclass(slots=True)
class OutputTally:
    """What became of one output. Identical ones aren't counted here: they differ by 0."""

    mismatches: int = 0
    """Pairs in which it was beyond its tolerance."""
    kinds: dict[str, int] = field(default_factory=dict)
    """`Kind` to mismatches."""
    max_absolute: float = 0.0
    sum_absolute: float = 0.0
    """Of each pair's mean absolute difference."""
    max_relative: float = 0.0
    sum_relative: float = 0.0
    not_finite: int = 0
    """Pairs with a NaN or an infinity on one side alone."""
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    """The primary's class to the shadow's class to rows in which they disagree."""

    def add(self, difference: Difference) -> None:
        """Count one pair's."""
        if not difference.equal:
            self.mismatches += 1
            kind = difference.kind.value
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if isinstance(difference.found, Numbers):
            self._add_numbers(difference.found)
        elif isinstance(difference.found, Classes):
            for (primary, shadow), rows in difference.found.confusion.items():
                count(self.confusion, primary, {shadow: rows}, MAX_CLASSES, _rows_added)

    def _add_numbers(self, numbers: Numbers) -> None:
        self.max_absolute = max(self.max_absolute, numbers.max_absolute)
        self.sum_absolute = _finite(self.sum_absolute + numbers.mean_absolute)
        self.max_relative = max(self.max_relative, numbers.max_relative)
        self.sum_relative += numbers.mean_relative
        self.not_finite += numbers.not_finite > 0

    def merge(self, other: "OutputTally") -> None:
        """Count everything that another tally has."""
        self.mismatches += other.mismatches
        _add_counts(self.kinds, other.kinds)
        self.max_absolute = max(self.max_absolute, other.max_absolute)
        self.sum_absolute = _finite(self.sum_absolute + other.sum_absolute)
        self.max_relative = max(self.max_relative, other.max_relative)
        self.sum_relative += other.sum_relative
        self.not_finite += other.not_finite
        merge(self.confusion, other.confusion, MAX_CLASSES, _rows_added)


@dataclass(slots=True)
class ShadowTally:
    """Everything about one shadow of one route. Memory is bounded by the spec and the model's outputs.

    Merging is associative and commutative, and equals one tally of everything, but for the rounding of sums of floats.
    """

    capacity: int = 10
    """Examples kept: `ShadowSpec.examples`."""
    sampled: int = 0
    """Requests chosen to be copied; count it with `+= 1`."""
    drops: dict[str, int] = field(default_factory=dict)
    """Of those, never sent: `Drop` to requests."""
    rescued: int = 0
    """Pairs in which the client got another version's answer, because the one that was asked first failed."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """`Outcome` to pairs."""
    mismatched: int = 0
    """Compared pairs with an output beyond its tolerance."""
    primary_statuses: dict[str, int] = field(default_factory=dict)
    """Status to answers, from 400 on."""
    shadow_statuses: dict[str, int] = field(default_factory=dict)
    primary_latency: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    """Of pairs that both answered, as in `nstarx.histogram`."""
    shadow_latency: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    outputs: dict[str, OutputTally] = field(default_factory=dict)
    """Those that were not identical in some pair."""
    slices: dict[str, dict[str, Slice]] = field(default_factory=dict)
    """Attribute to value to counts."""
    examples: list[Example] = field(default_factory=list)
    """Compared pairs, the most different first."""
    failures: list[Example] = field(default_factory=list)
    """Pairs that the shadow failed, the earliest first; apart, for they would crowd out all others."""

    def add(self, pair: Pair, comparison: Comparison, spec: ShadowSpec) -> None:
        """Count one pair, and keep it as an example where it is among the most different."""
        outcome = comparison.outcome
        self.outcomes[outcome.value] = self.outcomes.get(outcome.value, 0) + 1
        _add_status(self.primary_statuses, pair.primary.status)
        _add_status(self.shadow_statuses, pair.shadow.status)
        self.mismatched += outcome is Outcome.compared and not comparison.equal
        self.rescued += pair.rescued
        if outcome in _TIMED:
            self.primary_latency[bucket_of(pair.primary_ns)] += 1
            self.shadow_latency[bucket_of(pair.shadow_ns)] += 1
        if spec.attributes and outcome in _ANSWERED:
            self._slice(pair, comparison, spec)
        for difference in comparison.differences:
            output = self.outputs.get(difference.output)
            if output is None:
                output = self.outputs[difference.output] = OutputTally()
            output.add(difference)
        if outcome is Outcome.shadow_failed:
            self.failures = kept_with(self.failures, pair, comparison, spec, self.capacity)
        elif comparison.distance:
            self.examples = kept_with(self.examples, pair, comparison, spec, self.capacity)

    def drop(self, why: Drop) -> None:
        """Count a request that was chosen, and not sent."""
        self.drops[why.value] = self.drops.get(why.value, 0) + 1

    def _slice(self, pair: Pair, comparison: Comparison, spec: ShadowSpec) -> None:
        compared = comparison.outcome is Outcome.compared
        failed = comparison.outcome is Outcome.shadow_failed
        counts = (1, int(failed), int(compared), int(compared and not comparison.equal))
        for name, value in zip(spec.attributes, pair.values, strict=True):
            values = self.slices.setdefault(name, {})
            count(values, value[:VALUE_LENGTH] or NO_VALUE, counts, MAX_VALUES, _slices_added)

    def merge(self, other: "ShadowTally") -> None:
        """Count everything that another tally has; `other` stays as it is, and shares nothing that changes."""
        self.capacity = min(self.capacity, other.capacity)
        self.sampled += other.sampled
        _add_counts(self.drops, other.drops)
        self.rescued += other.rescued
        _add_counts(self.outcomes, other.outcomes)
        self.mismatched += other.mismatched
        _add_counts(self.primary_statuses, other.primary_statuses)
        _add_counts(self.shadow_statuses, other.shadow_statuses)
        self.primary_latency = merged((self.primary_latency, other.primary_latency))
        self.shadow_latency = merged((self.shadow_latency, other.shadow_latency))
        for name, output in other.outputs.items():
            self.outputs.setdefault(name, OutputTally()).merge(output)
        for name, values in other.slices.items():
            merge(self.slices.setdefault(name, {}), values, MAX_VALUES, _slices_added)
        self.examples = most_different(self.examples + other.examples, self.capacity)
        self.failures = most_different(self.failures + other.failures, self.capacity)

    def of(self, *outcomes: Outcome) -> int:
        """Pairs with any of these outcomes."""
        return sum([self.outcomes.get(outcome.value, 0) for outcome in outcomes])

    @property
    def dropped(self) -> int:
        """Requests chosen, and never sent."""
        return sum(self.drops.values())

    def document(self) -> dict[str, Any]:
        """As JSON holds it; it shares nothing that changes, and examples never do."""
        examples: dict[str, Any] = {"examples": self.examples.copy(), "failures": self.failures.copy()}
        counts = {name: _copy(getattr(self, name)) for name in self.__slots__ if name not in examples}
        return counts | {"outputs": {name: asdict(output) for name, output in self.outputs.items()}} | examples

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ShadowTally":
        """What `document` gave, also after a way through JSON."""
        outputs = {name: OutputTally(**_copy(output)) for name, output in document["outputs"].items()}
        return cls(**{**_copy(document), "outputs": outputs, "slices": _slices(document["slices"])})


def merged_tally(tallies: Iterable[ShadowTally]) -> ShadowTally | None:
    """One tally of everything that several have seen; None of none."""
    total: ShadowTally | None = None
    for tally in tallies:
        if total is None:
            total = ShadowTally(tally.capacity)
        total.merge(tally)
    return total


def _add_status(counts: dict[str, int], status: int) -> None:
    if status >= 400:
        key = str(status)
        counts[key] = counts.get(key, 0) + 1


def _add_counts(counts: dict[str, int], others: dict[str, int]) -> None:
    for key, number in others.items():
        counts[key] = counts.get(key, 0) + number


def _rows_added(row: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    total = dict(row)
    merge(total, other, MAX_CLASSES, add)
    return total


def _slices_added(one: Slice, other: Slice) -> Slice:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _finite(total: float) -> float:
    # JSON knows no infinity.
    return min(total, sys.float_info.max)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list | tuple) else value


def _slices(document: dict[str, dict[str, Any]]) -> dict[str, dict[str, Slice]]:
    # JSON makes lists of tuples.
    return {name: {value: (c[0], c[1], c[2], c[3]) for value, c in values.items()} for name, values in document.items()}
