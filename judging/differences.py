"""How far apart the elements of two tensors of one shape and datatype are: as numbers, as classes, as text.

Over Python's own lists, which for a few elements is ten times faster than numpy, whose every call costs about a
microsecond. `array_differences` does the same for many.
"""

import math
from typing import Any, NamedTuple

Elements = list[Any]

FEW = 32
"""Elements up to which lists are faster."""
LABEL_LENGTH = 64
"""Characters of a class name that are kept."""


class Numbers(NamedTuple):
    """Differences between the elements of two numeric tensors.

    Relative is |a - b| / max(|a|, |b|), from 0 to 2, and 0 between two zeros. Two NaN, and two equal infinities, differ
    by 0; any other pair whose difference is not finite is left out of maxima and means, and counts in `not_finite`.
    """

    beyond: int = 0
    """Elements beyond the tolerance, the `not_finite` ones among them."""
    not_finite: int = 0
    max_absolute: float = 0.0
    mean_absolute: float = 0.0
    max_relative: float = 0.0
    mean_relative: float = 0.0
    severity: float = 0.0
    """From 0 to 1: the largest of |a - b| / (max(|a|, |b|) + tolerance) / 2, so that noise around 0 weighs little."""


class Classes(NamedTuple):
    """Disagreement between two tensors of classes."""

    rows: int
    confusion: dict[tuple[str, str], int]
    """(the primary's class, the shadow's class) to rows, for those that disagree."""


def numbers(a: Elements, b: Elements, max_absolute: float, max_relative: float) -> Numbers:
    """Differences of two tensors of numbers or booleans."""
    beyond = not_finite = 0
    top = total = top_relative = total_relative = severity = 0.0
    for x, y in zip(a, b, strict=True):
        if x == y or (x != x and y != y):
            continue
        gap, peak = float(abs(x - y)), float(max(abs(x), abs(y)))
        if not gap < math.inf:
            not_finite += 1
            continue
        relative, weight = gap / peak, gap / (peak + max_absolute)
        total += gap
        total_relative += relative
        if gap > top:
            top = gap
        if relative > top_relative:
            top_relative = relative
        if weight > severity:
            severity = weight
        if gap > max_absolute and gap > max_relative * peak:
            beyond += 1
    count = (len(a) - not_finite) or 1
    return Numbers(
        beyond + not_finite,
        not_finite,
        top,
        min(total / count, top),
        top_relative,
        total_relative / count,
        1.0 if not_finite else severity / 2,
    )


def classes(a: Elements, b: Elements, width: int) -> Classes:
    """Disagreement of two tensors of classes.

    With a `width` above 1 the elements are scores, so many in a row, and a row's class is the place of its greatest,
    or NaN where it holds one. Else each element is a class.
    """
    return confusion(a, b) if width == 1 else confusion(_best(a, width), _best(b, width))


def confusion(left: Elements, right: Elements) -> Classes:
    """Disagreement of two lists of classes; NaN agrees with NaN."""
    counts: dict[tuple[str, str], int] = {}
    if left != right:
        for x, y in zip(left, right, strict=True):
            if x != y and (pair := (_label(x), _label(y)))[0] != pair[1]:
                counts[pair] = counts.get(pair, 0) + 1
    return Classes(len(left), counts)


def texts(a: Elements, b: Elements) -> int:
    """How many elements differ."""
    return sum([x != y for x, y in zip(a, b, strict=True)])


def _best(scores: Elements, width: int) -> Elements:
    return [_place(scores[start : start + width]) for start in range(0, len(scores), width)]


def _place(scores: Elements) -> Any:
    best = max(scores)
    # NaN is greater than nothing, unless it comes first; a sum keeps it wherever it is.
    return math.nan if math.isnan(sum(scores)) and any(map(math.isnan, scores)) else scores.index(best)


def _label(label: Any) -> str:
    return (label.decode(errors="replace") if isinstance(label, bytes) else str(label))[:LABEL_LENGTH]
