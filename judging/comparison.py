"""Two answers to one request, the primary's and the shadow's, compared output by output."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from judging import array_differences, differences
from judging.answers import Answer, Output, few, inflated, outputs
from judging.differences import FEW, Classes, Numbers
from nstarx.spec.shadow import ShadowSpec, ToleranceSpec

REFUSED = frozenset((429, 499, 503))
"""Statuses of a shadow that say nothing about its version: too many requests, nobody waited, no capacity."""


class Outcome(StrEnum):
    """What became of a pair of answers."""

    compared = "compared"
    """Both answered, and the answers were compared."""
    answered = "answered"
    """Both answered, and the answers were not compared."""
    refused = "refused"
    """The shadow had no capacity, or lost its turn; nothing is known about its version."""
    primary_failed = "primary_failed"
    """The shadow answered, the primary did not."""
    shadow_failed = "shadow_failed"
    """The primary answered, the shadow did not."""
    both_failed = "both_failed"
    """Neither answered: most likely the request's fault, or that of something both need."""


class Kind(StrEnum):
    """In what way an output was compared, or could not be."""

    numbers = "numbers"
    classes = "classes"
    text = "text"
    datatype = "datatype"
    """The datatypes differ."""
    shape = "shape"
    """The shapes differ."""
    missing = "missing"
    """The shadow's answer has no such output."""
    unexpected = "unexpected"
    """Only the shadow's answer has such an output."""
    unreadable = "unreadable"
    """One of the two is not a whole tensor."""


class Measure(Protocol):
    """What `differences` does for a few elements, and `array_differences` for many."""

    def numbers(self, a: Any, b: Any, max_absolute: float, max_relative: float) -> Numbers: ...
    def classes(self, a: Any, b: Any, width: int) -> Classes: ...
    def texts(self, a: Any, b: Any) -> int: ...


FLOATING = frozenset(("FP16", "FP32", "FP64", "BF16"))

_LEVELS = {Kind.numbers: 1, Kind.classes: 2, Kind.text: 2}
_STRUCTURE = 3


class Difference(NamedTuple):
    """One output whose two tensors are not identical."""

    output: str
    kind: Kind
    equal: bool
    """Within the tolerance."""
    severity: float
    """From 0 to 1, within its kind."""
    found: Numbers | Classes | str
    """The numbers; for kinds that have none, why."""

    def explain(self) -> str:
        """A sentence for people; it holds no element of any tensor but names of classes."""
        if isinstance(self.found, Numbers):
            return f"{self.output}: {_numbers_sentence(self.found)}"
        return f"{self.output}: {_classes_sentence(self.found) if isinstance(self.found, Classes) else self.found}"


class Comparison(NamedTuple):
    """What comparing two answers found."""

    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    """Outputs that are not identical; those within their tolerance too."""
    distance: float = 0.0
    """How different, to rank pairs by: 0 identical, up to 1 within all tolerances, then numbers up to 2, classes and
    text up to 3, structure up to 4 (datatype, shape, missing outputs), and 5 where the shadow failed."""

    @property
    def equal(self) -> bool:
        """Both answered, and no output is beyond its tolerance."""
        return self.outcome is Outcome.compared and all(difference.equal for difference in self.differences)


_IDENTICAL = Comparison(Outcome.compared)
_BY_STATUS = {
    (True, True): Comparison(Outcome.answered),
    (False, True): Comparison(Outcome.primary_failed),
    (True, False): Comparison(Outcome.shadow_failed, distance=5.0),
    (False, False): Comparison(Outcome.both_failed),
}
"""(the primary answered, the shadow answered) to what is known."""


def compare_statuses(primary: int, shadow: int) -> Comparison:
    """What two statuses alone say: for pairs whose answers there is no time, or no wish, to compare."""
    if shadow in REFUSED:
        return Comparison(Outcome.refused)
    return _BY_STATUS[primary < 400, shadow < 400]


def compare(primary: Answer, shadow: Answer, spec: ShadowSpec) -> Comparison:
    """Compare the two answers to one request.

    Answers that are the same bytes but for names, versions and ids are equal without being read. An answer that is not
    one of the protocol's counts as failed.
    """
    if primary.status >= 400 or shadow.status >= 400 or not spec.compare:
        return compare_statuses(primary.status, shadow.status)
    if same_outputs(primary, shadow):
        return _IDENTICAL
    left, right = _read(primary), _read(shadow)
    if left is None or right is None:
        return _BY_STATUS[left is not None, right is not None]
    found = _differences(left, right, spec)
    return Comparison(Outcome.compared, found, _distance(found))


def same_outputs(primary: Answer, shadow: Answer) -> bool:
    """Whether two bodies are the same bytes from the list of outputs on. False may also mean: not known.

    Names, versions and ids come before that list in our replicas' answers, and no JSON string can hold `"outputs":[`,
    its quotes would be escaped. So equal tails hold equal outputs.
    """
    if primary.body == shadow.body:
        return primary.json_length == shadow.json_length
    start, other = primary.body.find(b'"outputs":['), shadow.body.find(b'"outputs":[')
    if start < 0 or other < 0 or len(primary.body) - start != len(shadow.body) - other:
        return False
    return _past(start, primary.json_length) == _past(other, shadow.json_length) and (
        shadow.body.endswith(primary.body[start:])
    )


def _past(start: int, json_length: int | None) -> int | None:
    return None if json_length is None else json_length - start


def _read(answer: Answer) -> dict[str, Output] | None:
    try:
        plain = inflated(answer)
        return outputs(plain.body, plain.json_length)
    except ValueError:
        return None


def _differences(primary: dict[str, Output], shadow: dict[str, Output], spec: ShadowSpec) -> tuple[Difference, ...]:
    found = []
    for name, output in primary.items():
        other = shadow.get(name)
        if output != other and not (tolerance := spec.tolerance_of(name)).ignore:
            found.append(_difference(name, output, other, tolerance))
    for name in shadow:
        if name not in primary and not spec.tolerance_of(name).ignore:
            found.append(_structural(name, Kind.unexpected, "only the shadow's answer has it"))
    return tuple(found)


def _difference(name: str, primary: Output, shadow: Output | None, tolerance: ToleranceSpec) -> Difference:
    if shadow is None:
        return _structural(name, Kind.missing, "the shadow's answer does not have it")
    if primary.datatype != shadow.datatype:
        return _structural(name, Kind.datatype, f"{primary.datatype} became {shadow.datatype}")
    if primary.shape != shadow.shape:
        return _structural(name, Kind.shape, f"the shape {primary.shape} became {shadow.shape}")
    try:
        return _measured(name, primary, shadow, tolerance)
    except ValueError as error:
        return _structural(name, Kind.unreadable, str(error))


def _measured(name: str, primary: Output, shadow: Output, tolerance: ToleranceSpec) -> Difference:
    elements = few(primary, shadow, FEW)
    if elements is not None:
        return _judged(name, differences, *elements, primary, tolerance)
    return _judged(name, array_differences, primary.array(), shadow.array(), primary, tolerance)


def _judged(name: str, measure: Measure, a: Any, b: Any, form: Output, tolerance: ToleranceSpec) -> Difference:
    floating = form.datatype in FLOATING
    if tolerance.classes:
        return _by_classes(name, measure.classes(a, b, form.shape[-1] or 1 if floating and form.shape else 1))
    if form.datatype == "BYTES":
        return _by_text(name, measure.texts(a, b), math.prod(form.shape))
    found = measure.numbers(a, b, *tolerance.bounds(floating))
    return Difference(name, Kind.numbers, not found.beyond, found.severity, found)


def _structural(name: str, kind: Kind, sentence: str) -> Difference:
    return Difference(name, kind, False, 1.0, sentence)


def _by_classes(name: str, found: Classes) -> Difference:
    differing = sum(found.confusion.values())
    return Difference(name, Kind.classes, not differing, differing / (found.rows or 1), found)


def _by_text(name: str, differing: int, count: int) -> Difference:
    return Difference(name, Kind.text, not differing, differing / (count or 1), f"{differing} of {count} texts differ")


def _numbers_sentence(measured: Numbers) -> str:
    return (
        f"{measured.beyond} elements beyond tolerance; "
        f"largest difference {measured.max_absolute:.4g}, relative {measured.max_relative:.4g}"
        + (f"; {measured.not_finite} not finite on one side" if measured.not_finite else "")
    )


def _classes_sentence(found: Classes) -> str:
    differing = sum(found.confusion.values())
    pairs = ", ".join(f"{a} became {b}" for a, b in sorted(found.confusion)[:3])
    return f"{differing} of {found.rows} classes differ: {pairs}" if differing else "all classes agree"


def _distance(differences: Sequence[Difference]) -> float:
    """The worst kind's level, plus all severities together as one number from 0 to 1 that grows with each of them.

    Halved, so that one of 1 leaves the others a say.
    """
    level, likeness = 0, 1.0
    for difference in differences:
        likeness *= 1 - difference.severity / 2
        if not difference.equal:
            level = max(level, _LEVELS.get(difference.kind, _STRUCTURE))
    return level + 1 - likeness
