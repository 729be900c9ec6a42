"""Where a version stands: healthy, suspected, demoted, on probation or given up, and how it gets from one to the next.

    healthy <-> suspected -> demoted -> probation -> healthy
                                ^___________|            the last demotion that is allowed: given_up

Functions of a standing, a verdict and the time. Asked again with nothing new, they change nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

from judging.verdict import Demote, Evidence, Keep, NotEnoughData
from judging.wording import percent
from nstarx.spec.demotion import DemotionSpec
from nstarx.spec.record import Record

State = Literal["healthy", "suspected", "demoted", "probation", "given_up"]
STATES: Mapping[State, str] = {
    "healthy": "Has its full weight; nothing is held against it.",
    "suspected": "Has its full weight; the evidence is half-way, or is enough and may not be acted on.",
    "demoted": "Has no traffic until its demotion time is over.",
    "probation": "Comes back with a small share of its weight, which doubles as long as nothing is wrong.",
    "given_up": "Has no traffic until a person undoes it: it was demoted too often.",
}
"""What each state means."""

SUSPICIOUS = 0.5
"""Suspicion from which a version is suspected: half-way, on a logarithmic scale."""


class Standing(Record):
    """Where a version stands, and since when. Times are seconds on the clock that `advance` is given."""

    state: State = "healthy"
    since: float = 0.0
    """When the state was entered; suspected: or was last found guilty without consequence."""
    until: float | None = None
    """Demoted: when probation begins. On probation: when the share may double. After an undo: when the grace is
    over."""
    percent: float = 100.0
    """Share of the version's weight while it is on probation."""
    demotions: int = 0
    """Since they were last forgotten."""
    reason: str | None = None
    """One sentence: why it is where it is."""
    evidence: Evidence | None = None
    """Of the last verdict that demoted it, or would have."""


Judged = Keep | Demote | NotEnoughData


def share(standing: Standing) -> float:
    """The factor by which the version's weight is multiplied, from 0 to 1."""
    if standing.state in ("demoted", "given_up"):
        return 0.0
    return standing.percent / 100 if standing.state == "probation" else 1.0


def advance(
    standing: Standing, verdict: Judged, policy: DemotionSpec, now: float, refusal: str | None = None
) -> Standing:
    """The standing after a verdict. `refusal` is why a demotion may not be carried out (`may_demote`), in words."""
    if standing.state == "given_up":
        return standing
    if standing.state == "demoted":
        return _served(standing, policy, now)
    if isinstance(verdict, Demote):
        return _condemned(standing, verdict.evidence, policy, now, refusal)
    if standing.state == "probation":
        return _on_probation(standing, verdict, policy, now)
    return _at_large(standing, verdict, policy, now)


def _served(standing: Standing, policy: DemotionSpec, now: float) -> Standing:
    """Demoted: out of traffic, so that no verdict about it is news."""
    if standing.until is None or now < standing.until:
        return standing
    return standing.model_copy(
        update={
            "state": "probation",
            "since": now,
            "until": now + policy.probation_step_s,
            "percent": policy.probation_percent,
            "reason": f"Its demotion time is over; it has {percent(policy.probation_percent / 100)} of its weight.",
        }
    )


def _condemned(
    standing: Standing, evidence: Evidence, policy: DemotionSpec, now: float, refusal: str | None
) -> Standing:
    spared = _spared(standing, policy, now) or refusal
    if spared:
        return _suspected(standing, f"{evidence.sentence} {spared}", policy, now, evidence)
    times = standing.demotions + 1
    final = times >= policy.max_demotions
    return Standing(
        state="given_up" if final else "demoted",
        since=now,
        until=None if final else now + min(policy.demotion_time_s * times, policy.max_demotion_time_s),
        demotions=times,
        reason=evidence.sentence,
        evidence=evidence,
    )


def _spared(standing: Standing, policy: DemotionSpec, now: float) -> str | None:
    if not policy.enforce:
        return "It stays: the policy says enforce: false."
    in_grace = standing.state in ("healthy", "suspected") and standing.until is not None and now < standing.until
    return "It stays: a person has just undone a demotion." if in_grace else None


def _suspected(
    standing: Standing, reason: str, policy: DemotionSpec, now: float, evidence: Evidence | None = None
) -> Standing:
    """Under suspicion with its full weight, or held at its present share while on probation."""
    if standing.state == "probation":
        change: dict[str, Any] = {"until": now + policy.probation_step_s}
    elif standing.state == "suspected":
        change = {"since": now} if evidence else {}
    else:
        change = {"state": "suspected", "since": now}
    return standing.model_copy(update={**change, "reason": reason, "evidence": evidence or standing.evidence})


def _on_probation(standing: Standing, verdict: Keep | NotEnoughData, policy: DemotionSpec, now: float) -> Standing:
    """The share doubles for calls that went well, never for want of calls."""
    if isinstance(verdict, NotEnoughData) or standing.until is None or now < standing.until:
        return standing
    if verdict.suspicion >= SUSPICIOUS:
        return _suspected(standing, verdict.sentence, policy, now)
    more = 2 * standing.percent
    if more >= 100:
        return _healthy(standing, "It has passed its probation.", now)
    return standing.model_copy(
        update={
            "percent": more,
            "until": now + policy.probation_step_s,
            "reason": "Nothing was wrong; its share doubles.",
        }
    )


def _at_large(standing: Standing, verdict: Keep | NotEnoughData, policy: DemotionSpec, now: float) -> Standing:
    if isinstance(verdict, Keep):
        suspicious = verdict.suspicion >= SUSPICIOUS
        if suspicious and standing.state == "healthy":
            return _suspected(standing, verdict.sentence, policy, now)
        # For a while at least, so that a version on the edge, or one whose demotion is refused, does not come and go.
        if not suspicious and standing.state == "suspected" and now - standing.since >= policy.interval_s:
            return _healthy(standing, "The suspicion has not been borne out.", now)
    return _forgiven(standing, policy, now)


def _healthy(standing: Standing, reason: str, now: float) -> Standing:
    until = standing.until if standing.state == "suspected" else None
    return standing.model_copy(
        update={"state": "healthy", "since": now, "until": until, "percent": 100.0, "reason": reason}
    )


def _forgiven(standing: Standing, policy: DemotionSpec, now: float) -> Standing:
    """Earlier demotions are forgotten after a long time in good health."""
    if standing.state != "healthy" or not standing.demotions or now - standing.since < policy.forget_after_s:
        return standing
    return standing.model_copy(update={"demotions": 0})


def undone(policy: DemotionSpec, now: float) -> Standing:
    """The standing after a person's undo: full weight, nothing held against the version, and a grace."""
    return Standing(since=now, until=now + policy.grace_s, reason="A person has undone its demotion.")


def starts_anew(before: Standing, after: Standing) -> bool:
    """Whether the evidence so far is to be dropped (`Watch.reset`, `Survey.reset`): the version comes back to
    traffic."""
    return share(before) == 0 < share(after)


def on_clock(standing: Standing, ahead_s: float) -> Standing:
    """The same standing on a clock that is `ahead_s` ahead, such as that of the process that takes over."""
    until = None if standing.until is None else standing.until + ahead_s
    return standing.model_copy(update={"since": standing.since + ahead_s, "until": until})


def may_demote(
    version: str,
    weights: Mapping[str, float],
    standings: Mapping[str, Standing],
    policy: DemotionSpec,
    fallback: str | None = None,
) -> str | None:
    """Why a version of a route must not be demoted, as a sentence; None when it may.

    `weights` are the route's, as configured; a version without a standing is healthy. `fallback` is the version that
    takes over, where the route names one: it has to be healthy itself.
    """
    others = {other for other, weight in weights.items() if other != version and weight > 0} | {fallback} - {
        None,
        version,
    }
    healthy = {other for other in others if _state(other, standings) in ("healthy", "suspected")}
    if not healthy:
        return f"{version} stays: it is the last healthy version of this route, and nobody else would answer."
    if fallback and fallback != version and _state(fallback, standings) != "healthy":
        return f"{version} stays: {fallback}, which would take its traffic, is {_state(fallback, standings)} itself."
    return _too_much(version, weights, standings, policy)


def _state(version: str | None, standings: Mapping[str, Standing]) -> State:
    standing = standings.get(version) if version else None
    return standing.state if standing else "healthy"


def _too_much(
    version: str, weights: Mapping[str, float], standings: Mapping[str, Standing], policy: DemotionSpec
) -> str | None:
    out = [other for other in weights if other == version or _state(other, standings) in ("demoted", "given_up")]
    total = sum(weights.values())
    part = sum(weights[other] for other in out) / total if total else 0.0
    if 100 * part <= policy.max_demoted_percent:
        return None
    borne = percent(policy.max_demoted_percent / 100)
    return (
        f"{version} stays: {percent(part)} of the route's traffic would be demoted; max_demoted_percent allows {borne}."
    )
