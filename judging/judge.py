"""Whether a version is kept, demoted, or too little known: a function of counts, rules and the time, and of nothing
else."""

from math import log

from judging.latency import latency_evidence
from judging.readings import Readings
from judging.sequential import Detector, Seen, Sequential, fading, fired, known, limit, threshold
from judging.verdict import Demote, Evidence, Figures, Keep, NotEnoughData
from judging.windows import FIRST, Failing
from judging.wording import among, calls, failed, percent, times
from nstarx.spec.demotion import DemotionSpec, MinEffect


def judge(readings: Readings, policy: DemotionSpec, now: float) -> Keep | Demote | NotEnoughData:
    """The verdict on a version: failures first, then latency, and only then whether there were calls enough."""
    evidence = failure_evidence(readings, policy, now) or latency_evidence(readings, policy, now)
    return Demote(evidence=evidence) if evidence else _unproven(readings, policy)


def failure_evidence(readings: Readings, policy: DemotionSpec, now: float) -> Evidence | None:
    """The first rule about failures that the version has broken, with its numbers."""
    broken = next((rule for rule, enough in fired(readings.trail, policy).items() if enough), None)
    return broken and _evidence(broken, readings, policy, now)


def _evidence(rule: Sequential, readings: Readings, policy: DemotionSpec, now: float) -> Evidence:
    trail, detector = readings.trail, readings.trail.detectors[rule]
    new = trail.seen.since(detector.start)
    accused, stable = _accused(readings.version, new), _stable(readings.stable, new)
    borne = None if rule == "min_effect" else float(limit(rule, policy, known(trail, trail.seen, policy)))
    return Evidence(
        rule=rule,
        at=now,
        window_s=max(now - detector.start_s, 0.0),
        accused=accused,
        stable=stable,
        statistic=float(detector.total),
        threshold=threshold(policy),
        limit=borne,
        first_failing=_first_failing(readings.failing, detector),
        sentence=_sentence(rule, accused, stable, borne, policy.min_effect),
    )


def _accused(version: str, new: Seen) -> Figures:
    return Figures(
        version=version,
        calls=int(new.calls),
        failures=int(new.failures),
        timeouts=int(new.timeouts),
        invalid=int(new.invalid),
    )


def _stable(version: str | None, new: Seen) -> Figures | None:
    if version is None:
        return None
    return Figures(version=version, calls=int(new.stable_calls), failures=int(new.stable_failures))


def _first_failing(failing: tuple[Failing, ...], detector: Detector) -> tuple[str, ...]:
    return tuple(call.id for call in failing if call.at >= detector.start_s)[:FIRST]


def _sentence(
    rule: Sequential, accused: Figures, stable: Figures | None, borne: float | None, effect: MinEffect | None
) -> str:
    beside = f", while {failed(stable)} in the same time" if stable else ""
    if rule == "consecutive_failures":
        return f"{accused.version} failed {calls(accused.failures)} in a row{among(accused)}{beside}."
    if rule == "min_effect" and effect:
        more = f"more than {times(effect.ratio)} as often plus {percent(effect.floor)}, and more than chance explains"
        return f"{failed(accused)}{among(accused)}{beside}: {more}."
    return f"{_broken(rule, accused)}{beside}: more than the {percent(borne or 0.0)} that {rule} bears, beyond chance."


def _broken(rule: Sequential, accused: Figures) -> str:
    if rule == "max_timeout_rate":
        return f"{accused.version} timed out on {accused.timeouts:,} of {calls(accused.calls)}"
    if rule == "max_invalid_rate":
        return f"{accused.version} gave invalid outputs in {accused.invalid:,} of {calls(accused.calls)}"
    return f"{failed(accused)}{among(accused)}"


def _unproven(readings: Readings, policy: DemotionSpec) -> Keep | NotEnoughData:
    window = readings.recent
    seconds, number, failures = window.seconds, window.counts.calls, window.counts.failures
    had = f"{readings.version} had {calls(number)} in {seconds:g} s"
    if number < policy.min_requests:
        sentence = f"{had}; a verdict needs {policy.min_requests:,}."
        return NotEnoughData(window_s=seconds, calls=number, wanted=policy.min_requests, sentence=sentence)
    rule, suspicion = _suspicion(readings, policy)
    return Keep(
        suspicion=suspicion,
        suspected_of=rule,
        window_s=seconds,
        calls=number,
        failures=failures,
        sentence=f"{had}, of which {failures:,} failed; nothing is proven against it.",
    )


def _suspicion(readings: Readings, policy: DemotionSpec) -> tuple[Sequential | None, float]:
    evidence = fading(readings.trail, readings.seen, policy)
    rule = max(evidence, key=lambda rule: evidence[rule], default=None)
    if rule is None or evidence[rule] <= 1:
        return None, 0.0
    return rule, min(log(evidence[rule]) / log(threshold(policy)), 1.0)
