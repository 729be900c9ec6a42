"""What changes are told as: events for everybody, and records of the verdicts against versions."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from cluster.demotions import Change
from cluster.events import EventKind
from cluster.records import DemotionRecord
from nstarx.spec.route import RouteSpec
from nstarx.spec.split import SplitSpec

KEPT = 50
"""Records of verdicts that are kept."""
Outcome = Literal["demoted", "given_up", "refused", "observed"]
TOLD: dict[Outcome, EventKind] = {
    "demoted": EventKind.DEMOTED,
    "given_up": EventKind.GIVEN_UP,
    "refused": EventKind.DEMOTION_REFUSED,
    "observed": EventKind.DEMOTION_OBSERVED,
}


def outcome(change: Change) -> Outcome | None:
    """What a verdict against the version came to; None when there is no verdict, or nothing new about it."""
    before, after = change.before, change.after
    if after.state in ("demoted", "given_up"):
        return after.state if before.state != after.state else None
    if after.evidence is None or (before.evidence is not None and before.evidence.rule == after.evidence.rule):
        return None
    if after.state not in ("suspected", "probation"):
        return None
    return "refused" if change.refusal else "observed"


def kind(change: Change) -> EventKind | None:
    """The event that a change is told as; None when it is not worth one."""
    if (told := outcome(change)) is not None:
        return TOLD[told]
    before, after = change.before, change.after
    if after.state == "probation" and (before.state, before.percent) != (after.state, after.percent):
        return EventKind.PROBATION
    if after.state == "suspected" and before.state != "suspected":
        return EventKind.SUSPECTED
    if after.state == "healthy" and before.state in ("suspected", "probation"):
        return EventKind.RECOVERED
    return None


def record(change: Change, id: int, now: float, gateway: str | None) -> DemotionRecord | None:
    """The record of a verdict against a version, if the change is one."""
    told, after = outcome(change), change.after
    if told is None or after.evidence is None:
        return None
    return DemotionRecord(
        id=id, time=now, route=change.route.name, version=change.version, outcome=told, until=after.until,
        sentence=sentence(change), evidence=after.evidence, gateway=gateway,
    )  # fmt: skip


def sentence(change: Change) -> str:
    """What has become of the version, and why."""
    after, route, version = change.after, change.route.name, change.version
    why = after.reason or ""
    match outcome(change) or after.state:
        case "demoted":
            out = (after.until or after.since) - after.since
            return f"{version} is out of route '{route}' for {out:g} s: {why}"
        case "given_up":
            times = f"{after.demotions} demotions"
            return f"{version} is out of route '{route}' until a person undoes it, after {times}: {why}"
        case "probation":
            return f"{version} has {after.percent:g} % of its weight on route '{route}': {why}"
        case "healthy":
            return f"{version} is healthy on route '{route}': {why}"
        case _:
            return f"{version} is suspected on route '{route}': {why}"


def merged(held: Iterable[DemotionRecord], own: Iterable[DemotionRecord]) -> tuple[DemotionRecord, ...]:
    """The records of a former life, and behind them those of this one, numbered on."""
    records = {_key(record): record for record in held}
    last = max((record.id for record in records.values()), default=0)
    for record in own:
        if (known := records.get(_key(record))) is None:
            last += 1
            records[_key(record)] = record.model_copy(update={"id": last})
        elif record.undone is not None:
            records[_key(record)] = known.model_copy(update={"undone": record.undone})
    return tuple(records.values())[-KEPT:]


def _key(record: DemotionRecord) -> tuple[float, str, str]:
    return record.time, record.route, record.version


def differences(before: RouteSpec | None, after: RouteSpec) -> Iterator[tuple[EventKind, str, dict[str, Any]]]:
    """What a person has changed about how a route divides its requests: kind, sentence and details of events."""
    if before is None:
        return
    if before.split.weights != after.split.weights:
        yield _divided(f"route '{after.name}'", before.split, after.split)
    known = {rule.name: rule for rule in before.rules}
    for rule in after.rules:
        subject, old = f"rule '{rule.name}' of route '{after.name}'", known.get(rule.name)
        if old and old.enabled != rule.enabled:
            sentence = f"{subject} is switched {'on' if rule.enabled else 'off'}"
            yield EventKind.FLAG_CHANGED, sentence, {"rule": rule.name, "enabled": rule.enabled}
        if old and old.split.weights != rule.split.weights:
            kind, sentence, details = _divided(subject, old.split, rule.split)
            yield kind, sentence, {"rule": rule.name, **details}


def _divided(subject: str, before: SplitSpec, after: SplitSpec) -> tuple[EventKind, str, dict[str, Any]]:
    sentence = f"{subject} divides its requests {_shares(before)} no more, but {_shares(after)}"
    return EventKind.WEIGHTS_CHANGED, sentence, {"before": before.weights, "after": after.weights}


def _shares(split: SplitSpec) -> str:
    weights = split.weights
    total = sum(weights.values())
    return ", ".join(f"{ref} {weight / total:.4g}" for ref, weight in weights.items())
