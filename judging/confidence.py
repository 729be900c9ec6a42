"""Confidence sequences: intervals that hold at every moment at once, so that looking often costs nothing.

With probability 1 - alpha the true value lies in all intervals that are ever computed (Howard, Ramdas, McAuliffe &
Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49). All formulas
need only counts, sums and sums of squares, and work elementwise on arrays: simulations run the code that judges.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from judging.moments import Moments
from nstarx.spec.experiment import MetricSpec

Floats: TypeAlias = float | npt.NDArray[np.float64]
Limits: TypeAlias = tuple[Floats, Floats]

MIN_OBSERVATIONS = 100
"""Fewer in an arm, and an asymptotic interval is unbounded: the normal approximation is not to be trusted yet."""
TIGHTEST_AT = 5000
"""Observations per arm at which asymptotic intervals are as narrow as they can be. Fixed ahead: no data may move it."""
_STEPS = 45


class Sample(NamedTuple):
    """Number of observations, their mean and their variance."""

    n: Floats
    mean: Floats
    variance: Floats = 0.0


def mean_limits(metric: MetricSpec, arms: Sequence[Moments], alpha: float) -> list[tuple[float, float]]:
    """Interval for a metric's mean in each arm, in the metric's unit. Many cost little more than one."""
    sample, (low, high) = _sample(metric, arms), metric.limits or (0.0, 1.0)
    found = bounded_mean(sample, alpha) if metric.limits else asymptotic_mean(sample, alpha)
    return _pairs(low + (high - low) * end for end in found)


def difference_limits(
    metric: MetricSpec, control: Moments, arms: Sequence[Moments], alpha: float, *, adaptive: bool
) -> list[tuple[float, float]]:
    """Interval for each arm's mean minus the control's, in the metric's unit. `adaptive`: weights follow outcomes."""
    base, other = _sample(metric, [control] * len(arms)), _sample(metric, arms)
    low, high = metric.limits or (0.0, 1.0)
    if metric.limits:
        found = bounded_difference(base, other, alpha)
    else:
        found = (asymptotic_difference_adaptive if adaptive else asymptotic_difference)(base, other, alpha)
    return _pairs((high - low) * end for end in found)


def _sample(metric: MetricSpec, arms: Sequence[Moments]) -> Sample:
    """The arms' samples, with values of limited metrics scaled to 0..1."""
    return Sample(
        np.array([arm.n for arm in arms], float),
        np.array([_scaled(metric, arm) for arm in arms]),
        np.array([arm.variance for arm in arms]),
    )


def _scaled(metric: MetricSpec, arm: Moments) -> float:
    if not arm.n or not metric.limits:
        return arm.mean if arm.n else 0.0
    low, high = metric.limits
    return min(max((arm.mean - low) / (high - low), 0.0), 1.0)  # Sums of values at a limit may round past it.


def _pairs(ends: Iterable[Floats]) -> list[tuple[float, float]]:
    low, high = (np.atleast_1d(end).tolist() for end in ends)
    return list(zip(low, high, strict=True))


def bounded_mean(sample: Sample, alpha: float) -> Limits:
    """Non-asymptotic interval for the mean of values in 0..1, given only their number and mean.

    Beta mixture of binomial likelihood ratios (Robbins 1970; Howard et al. 2021, "two-sided beta-binomial"), with the
    prior Beta(1/2, 1/2). For values between 0 and 1 the ratio's expectation is at most 1 by convexity.
    """
    budget = math.log(1 / alpha) + _regret(sample)
    mirrored = sample._replace(mean=1 - sample.mean)
    return 1 - _furthest(budget, lambda pull: _tilted(mirrored, pull)), _furthest(
        budget, lambda pull: _tilted(sample, pull)
    )


def bounded_difference(control: Sample, arm: Sample, alpha: float) -> Limits:
    """Non-asymptotic interval for the arm's mean minus the control's, for values in 0..1.

    The product of both arms' mixtures is a martingale whoever is observed next, so weights may follow outcomes. The
    interval is the shadow of the set of pairs of means that the product does not contradict.
    """
    budget = math.log(1 / alpha) + _regret(control) + _regret(arm)
    return -_furthest(budget, _apart(arm, control)), _furthest(budget, _apart(control, arm))


def _regret(sample: Sample) -> Any:
    """Log-likelihood of the best mean, less that of the Beta mixture."""
    n, mean = sample.n, sample.mean
    mixture = _log_gamma(n * mean + 0.5) + _log_gamma(n * (1 - mean) + 0.5) - _log_gamma(n + 1.0) - math.log(math.pi)
    return n * (_relative(mean, 1.0) + _relative(1 - mean, 1.0)) - mixture


_log_gamma = np.vectorize(math.lgamma, otypes=[float])


def _divergence(sample: Sample, p: Floats) -> Any:
    """n KL(mean, p): how much the observations speak against p, beside their own mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        against = sample.n * (_relative(sample.mean, p) + _relative(1 - sample.mean, 1 - p))
    return np.where(np.asarray(sample.n) > 0, against, 0.0)


def _relative(p: Floats, q: Floats) -> Any:
    """p log(p/q), which is 0 at p = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(p) > 0, p * np.log(np.divide(p, q)), 0.0)


def _tilted(sample: Sample, pull: Floats) -> tuple[Any, Any]:
    """The p that makes pull * p - n KL(mean, p) largest (root of a quadratic), and n KL(mean, p)."""
    hits, slack = sample.n * sample.mean, sample.n - pull
    root = np.sqrt(slack**2 + 4 * pull * hits)
    heavy = slack >= 0  # Two ways to write the root: each subtracts nearly equal numbers where the other does not.
    p = np.where(heavy, 2 * hits, root - slack) / np.maximum(np.where(heavy, slack + root, 2 * pull), 1e-300)
    p = np.minimum(p, 1.0)
    return p, _divergence(sample, p)


def _apart(low: Sample, high: Sample) -> Callable[[Floats], tuple[Any, Any]]:
    """Means of two arms pulled apart: their distance, and how much the observations speak against it."""
    mirrored = low._replace(mean=1 - low.mean)

    def at(pull: Floats) -> tuple[Any, Any]:
        (below, cost), (above, further) = _tilted(mirrored, pull), _tilted(high, pull)
        return above + below - 1, cost + further

    return at


def _furthest(budget: Floats, at: Callable[[Floats], tuple[Any, Any]]) -> Any:
    """The largest value whose cost is within the budget. Both rise with the pull, whose log is found by bisection."""
    low, high = np.full_like(budget, -2.0), np.full_like(budget, 60.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        beyond = at(np.exp(middle))[1] > budget
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    return at(np.exp(high))[0]


def asymptotic_mean(sample: Sample, alpha: float) -> Limits:
    """Interval for a mean, whatever the distribution (finite variance), exact in the limit of large samples.

    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 52, theorem 2.2: Robbins' normal mixture with the estimated variance.
    """
    radius = _normal_radius(sample.variance / np.maximum(sample.n, 1), sample.n, alpha)
    return _around(sample.mean, radius, sample)


def asymptotic_difference(control: Sample, arm: Sample, alpha: float) -> Limits:
    """Interval for the arm's mean minus the control's, in the limit of large samples.

    The same boundary on the clock of information, 1 / variance of the difference: on it the difference is a Brownian
    motion for any sizes of the arms, as long as they do not depend on outcomes (Jennison & Turnbull 1997).
    """
    error = _squared_error(control) + _squared_error(arm)
    size = (control.variance + arm.variance) / np.maximum(error, 1e-300)
    return _around(arm.mean - control.mean, _normal_radius(error, size, alpha), control, arm)


def asymptotic_difference_adaptive(control: Sample, arm: Sample, alpha: float) -> Limits:
    """As `asymptotic_difference`, but the weights may follow the outcomes, as a bandit's do; about an eighth wider.

    Each arm has a clock of its own, and the product of both arms' mixtures is the martingale.
    """
    level = math.log(1 / alpha)
    growth = [(level + math.log1p(level)) * sample.n / TIGHTEST_AT for sample in (control, arm)]
    spread = sum(
        _squared_error(sample) * (1 + 1 / np.maximum(x, 1e-300))
        for sample, x in zip((control, arm), growth, strict=True)
    )
    radius = np.sqrt(2 * spread * (level + 0.5 * sum(np.log1p(x) for x in growth)))
    return _around(arm.mean - control.mean, radius, control, arm)


def _squared_error(sample: Sample) -> Any:
    return sample.variance / np.maximum(sample.n, 1)


def _normal_radius(squared_error: Floats, size: Floats, alpha: float) -> Any:
    """Robbins' mixture boundary for an estimate; its tuning is that of Waudby-Smith et al., appendix B.2."""
    level = math.log(1 / alpha)
    growth = np.maximum((2 * level + math.log1p(2 * level)) * size / TIGHTEST_AT, 1e-300)
    return np.sqrt(2 * squared_error * (1 + 1 / growth) * (level + 0.5 * np.log1p(growth)))


def _around(centre: Floats, radius: Floats, *samples: Sample) -> Limits:
    """Unbounded where an arm has too few observations, or none that differ: no spread seen is not no spread."""
    usable = np.all([(s.n >= MIN_OBSERVATIONS) & (np.asarray(s.variance) > 0) for s in samples], axis=0)
    return np.where(usable, centre - radius, -np.inf), np.where(usable, centre + radius, np.inf)
