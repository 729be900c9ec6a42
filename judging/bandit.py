"""Thompson sampling: each arm's share is the probability that it is the best one, with a floor.

Thompson 1933; Chapelle & Li 2011, "An empirical evaluation of Thompson sampling". Bounded metrics as in Agrawal & Goyal
2012: a value between the bounds counts as that part of a success. Meant for once a second or slower, not per request.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from judging.moments import Moments
from nstarx.spec.experiment import MetricSpec

DRAWS = 10_000
"""A share is right to within one percentage point (two standard errors)."""

Draws = npt.NDArray[np.float64]


def shares(metric: MetricSpec, arms: Mapping[str, Moments], floor: float, rng: np.random.Generator) -> dict[str, float]:
    """Shares that sum to 1, none below `floor` (0..1; all floors together at most 1)."""
    draws = _posterior(metric, list(arms.values()), rng)
    best = np.argmax(draws if metric.direction == "increase" else -draws, axis=1)
    chances = np.bincount(best, minlength=len(arms)) / DRAWS
    spare = max(1 - floor * len(arms), 0.0)
    return {arm: floor + spare * float(chance) for arm, chance in zip(arms, chances, strict=True)}


def _posterior(metric: MetricSpec, arms: list[Moments], rng: np.random.Generator) -> Draws:
    """Draws of every arm's mean, one column an arm."""
    if metric.limits is None:
        return _normal(arms, rng)
    return np.column_stack([_beta(moments, *metric.limits, rng) for moments in arms])


def _beta(moments: Moments, low: float, high: float, rng: np.random.Generator) -> Draws:
    """Posterior of a mean in 0..1 under a uniform prior."""
    hits = min(max((moments.total - low * moments.n) / (high - low), 0.0), moments.n)
    return rng.beta(1 + hits, 1 + moments.n - hits, DRAWS)


def _normal(arms: list[Moments], rng: np.random.Generator) -> Draws:
    """Posteriors under a prior worth one observation of all arms together; measured from the common mean."""
    pooled = sum(arms, Moments())
    if pooled.n == 0:
        return rng.normal(size=(DRAWS, len(arms)))
    means = [(moments.total - pooled.mean * moments.n) / (moments.n + 1) for moments in arms]
    spread = pooled.variance or 1.0  # Nothing differs yet: any spread says that the arms are alike.
    variances = [(moments.variance * moments.n + spread) / (moments.n + 1) for moments in arms]
    errors = [math.sqrt(variance / (moments.n + 1)) for variance, moments in zip(variances, arms, strict=True)]
    return rng.normal(means, errors, size=(DRAWS, len(arms)))
