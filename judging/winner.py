"""Who won an experiment: each arm compared with the control, guardrails, and whether the split can be trusted.

The intervals of all differences of the primary metric hold at once, and at every moment, with probability 1 - alpha;
so do those of the guardrails, and those of the arms' means (Bonferroni). The result may be read at any time.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

from judging.confidence import difference_limits, mean_limits
from judging.experiment import Arm, Experiment
from judging.moments import Moments
from judging.ratio import RatioVerdict
from nstarx.spec.experiment import ExperimentSpec, GuardrailSpec, MetricSpec

Verdict: TypeAlias = Literal["winner", "no_difference", "undecided"]
EffectVerdict: TypeAlias = Literal["better", "worse", "no_difference", "undecided", "held", "broken"]


@dataclass(frozen=True, slots=True)
class Mean:
    """An arm's mean of the primary metric and its interval, in the metric's unit; NaN and infinite without data."""

    arm: str
    assigned: int
    observations: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """An arm's mean less the control's, and the interval of that difference, in the metric's unit."""

    arm: str
    metric: str
    difference: float
    low: float
    high: float
    verdict: EffectVerdict
    """Of the primary metric the first three; of a guardrail `held` (harm above `max_harm` is excluded) or `broken`
    (harm is above it); `undecided` of both."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an experiment says so far."""

    verdict: Verdict
    winner: str | None
    valid: bool
    """False: the split is broken, and no number here means anything."""
    overdue: bool
    """True: it ran for `max_duration_s`, and should be stopped whatever the verdict."""
    means: tuple[Mean, ...]
    effects: tuple[Effect, ...]
    guardrails: tuple[Effect, ...]
    ratio: RatioVerdict
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """As a document; what is not known, or not bounded, is null."""
        document: dict[str, Any] = _finite(asdict(self))
        return document


def result(state: Experiment, spec: ExperimentSpec, now: float) -> Result:
    """The verdict over what was seen until `now` (seconds, on the clock of `started_s`)."""
    ratio = state.ratio.verdict()
    effects = _effects(state, spec)
    guardrails = _guardrails(state, spec)
    verdict, winner = _decide(spec, effects, guardrails) if not ratio.alarm else ("undecided", None)
    overdue = now - state.started_s >= spec.max_duration_s
    sentence = _sentence(spec, verdict, winner, effects, guardrails, ratio)
    return Result(
        verdict, winner, not ratio.alarm, overdue, _means(state, spec), effects, guardrails, ratio,
        f"{sentence}; it ran for its longest time, stop it" if overdue else sentence,
    )  # fmt: skip


def _means(state: Experiment, spec: ExperimentSpec) -> tuple[Mean, ...]:
    seen = [_seen(state, name, spec.primary) for name in spec.arms]
    limits = mean_limits(spec.primary, seen, spec.alpha / len(spec.arms))
    return tuple(
        Mean(name, state.ratio.assigned.get(name, 0), moments.n, moments.mean, *ends)
        for name, moments, ends in zip(spec.arms, seen, limits, strict=True)
    )


def _effects(state: Experiment, spec: ExperimentSpec) -> tuple[Effect, ...]:
    return _compared_with_control(state, spec, spec.primary, spec.alpha / (len(spec.arms) - 1))


def _guardrails(state: Experiment, spec: ExperimentSpec) -> tuple[Effect, ...]:
    """Arm by arm."""
    pairs = len(spec.guardrails) * (len(spec.arms) - 1)
    found = [_compared_with_control(state, spec, guardrail, spec.alpha / pairs) for guardrail in spec.guardrails]
    return tuple(chain.from_iterable(zip(*found, strict=True)))


def _compared_with_control(
    state: Experiment, spec: ExperimentSpec, metric: MetricSpec, alpha: float
) -> tuple[Effect, ...]:
    others = [arm for arm in spec.arms if arm != spec.control]
    control, seen = _seen(state, spec.control, metric), [_seen(state, arm, metric) for arm in others]
    limits = difference_limits(metric, control, seen, alpha, adaptive=spec.bandit.enabled)
    return tuple(
        Effect(arm, metric.metric, moments.mean - control.mean, *ends, _judged(metric, spec, *ends))
        for arm, moments, ends in zip(others, seen, limits, strict=True)
    )


def _seen(state: Experiment, arm: str, metric: MetricSpec) -> Moments:
    return state.arms.get(arm, Arm())[metric.metric]


def _judged(metric: MetricSpec, spec: ExperimentSpec, low: float, high: float) -> EffectVerdict:
    gain = (low, high) if metric.direction == "increase" else (-high, -low)
    return _held(*gain, metric.max_harm) if isinstance(metric, GuardrailSpec) else _compared(*gain, spec)


def _compared(
    low: float, high: float, spec: ExperimentSpec
) -> Literal["better", "worse", "no_difference", "undecided"]:
    """Of a gain. What is too small to matter is no difference, even where it is certain."""
    if max(-low, high) <= spec.primary.min_effect:
        return "no_difference"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"


def _held(low: float, high: float, max_harm: float) -> Literal["held", "broken", "undecided"]:
    if high < -max_harm:
        return "broken"
    return "held" if low >= -max_harm else "undecided"


def _decide(
    spec: ExperimentSpec, effects: tuple[Effect, ...], guardrails: tuple[Effect, ...]
) -> tuple[Verdict, str | None]:
    """The best of the arms that beat the control and break no guardrail; the control when it beats all others."""
    harmful = {guardrail.arm for guardrail in guardrails if guardrail.verdict == "broken"}
    better = [effect for effect in effects if effect.verdict == "better"]
    winners = [effect for effect in better if effect.arm not in harmful]
    if winners:
        return "winner", max(winners, key=lambda effect: abs(effect.difference)).arm
    if all(effect.verdict == "worse" for effect in effects):
        return "winner", spec.control
    settled = all(effect.verdict in ("worse", "no_difference") for effect in effects)
    return ("no_difference" if settled else "undecided"), None


def _sentence(
    spec: ExperimentSpec,
    verdict: Verdict,
    winner: str | None,
    effects: tuple[Effect, ...],
    guardrails: tuple[Effect, ...],
    ratio: RatioVerdict,
) -> str:
    if ratio.alarm:
        return f"not valid: {ratio.sentence}"
    if winner:
        shown = effects if winner == spec.control else [effect for effect in effects if effect.arm == winner]
        return f"'{winner}' wins: {_shown(spec, shown)}"
    if verdict == "no_difference":
        return f"no arm differs for the better by more than {spec.primary.min_effect:g}: {_shown(spec, effects)}"
    broken = [effect for effect in guardrails if effect.verdict == "broken"]
    return f"undecided: {_shown(spec, [*effects, *broken])}"


def _shown(spec: ExperimentSpec, effects: Iterable[Effect]) -> str:
    return "; ".join(_change(spec, effect) for effect in effects)


def _change(spec: ExperimentSpec, effect: Effect) -> str:
    if math.isnan(effect.difference) or math.isinf(effect.low):
        return f"{effect.metric} of '{effect.arm}' or '{spec.control}' has too few outcomes that differ"
    harm = ", which breaks its guardrail" if effect.verdict == "broken" else ""
    return (
        f"{effect.metric} is {abs(effect.difference):.4g} {'lower' if effect.difference < 0 else 'higher'} with "
        f"'{effect.arm}' than with '{spec.control}' "
        f"({100 * (1 - spec.alpha):g} % sure of {effect.low:+.4g} to {effect.high:+.4g}){harm}"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
