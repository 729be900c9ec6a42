"""How high a quantile is beyond doubt: confidence bounds from the order of the observations, whatever their
distribution.

The number of observations above the true q-quantile is binomial (n, 1 - q), which says how far up or down the sorted
observations the quantile can be (David and Nagaraja 2003, "Order Statistics", 7.1). Observations are known by their
buckets (nstarx.histogram), so a bound is the edge of a bucket, the one that is further away.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nstarx.histogram import BOUNDS, BUCKETS


def lower_bound(counts: Sequence[int], q: float, alpha: float) -> float | None:
    """Seconds that the q-quantile is below with a chance of at most alpha; None when the observations are too few."""
    calls = sum(counts)
    chance = _upper_tail(calls, 1 - q)
    place = int(np.argmax(chance <= alpha)) if (chance <= alpha).any() else calls + 1
    bucket = _from_the_top(counts, place) if 0 < place <= calls else None
    return None if bucket is None else (BOUNDS[bucket - 1] / 1e9 if bucket else 0.0)


def upper_bound(counts: Sequence[int], q: float, alpha: float) -> float | None:
    """Seconds that the q-quantile is above with a chance of at most alpha; None when the observations are too few."""
    below = _lower_tail(sum(counts), 1 - q) <= alpha
    bucket = _from_the_top(counts, int(below.sum())) if below.any() else None
    return None if bucket is None or bucket == BUCKETS - 1 else BOUNDS[bucket] / 1e9


def _from_the_top(counts: Sequence[int], place: int) -> int:
    """The bucket of the observation at that place, the largest being the first."""
    for bucket in range(len(counts) - 1, -1, -1):
        place -= counts[bucket]
        if place <= 0:
            return bucket
    raise IndexError("there are fewer observations than that")


def _upper_tail(n: int, p: float) -> NDArray[np.float64]:
    """P(X >= k) for k = 0, 1, … of a binomial X."""
    return np.cumsum(_chances(n, p)[::-1])[::-1]


def _lower_tail(n: int, p: float) -> NDArray[np.float64]:
    """P(X <= k) for k = 0, 1, …"""
    return np.cumsum(_chances(n, p))


def _chances(n: int, p: float) -> NDArray[np.float64]:
    """P(X = k) for k = 0, 1, …, up to where they are too small for any use (below 1e-30)."""
    mean = n * p
    k = np.arange(1, min(n, int(mean + 14 * (mean + 50) ** 0.5)) + 1)
    steps = np.log((n - k + 1) / k * (p / (1 - p)))
    logs: NDArray[np.float64] = n * np.log1p(-p) + np.concatenate(([0.0], np.cumsum(steps)))
    return np.exp(logs)
