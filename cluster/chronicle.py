"""What changes of standing are told as: events for everybody, and records of the verdicts against versions."""

from typing import Literal

from cluster.demotions import Change
from cluster.events import EventKind
from cluster.records import DemotionRecord

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
