"""Confidence intervals for what shadows show: shares, and quantiles of latency.

Both are for one look at a moment that the numbers did not choose; who looks again and again will sooner or later see
one that misses.
"""

import math
from collections.abc import Sequence

from nstarx.histogram import quantile

Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


def share(count: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); from 0 to 1 without data.

    Near 0 its upper end keeps its promise, and its lower end is too high for counts below about 5: a limit that so few
    break is broken a little early.
    """
    if not of:
        return 0.0, 1.0
    estimate, weight = count / of, Z * Z / of
    middle = (estimate + weight / 2) / (1 + weight)
    reach = Z / (1 + weight) * math.sqrt(estimate * (1 - estimate) / of + weight / (4 * of))
    return (max(middle - reach, 0.0) if count else 0.0), (min(middle + reach, 1.0) if count < of else 1.0)


def latency_quantile(counts: Sequence[int], q: float) -> tuple[float, float] | None:
    """The 95 % interval, in seconds, of a quantile of a latency histogram; None with too few observations.

    From order statistics, whatever the distribution: the ranks between which the quantile lies, by the normal
    approximation of the binomial (Conover 1999, 3.2). The histogram's own coarseness of 13 % comes on top.
    """
    total = sum(counts)
    reach = Z * math.sqrt(q * (1 - q) / total) if total else math.inf
    if not 0 < q - reach < q + reach < 1:
        return None
    low, high = quantile(counts, q - reach), quantile(counts, q + reach)
    return None if low is None or high is None else (low, high)
