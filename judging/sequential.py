"""Evidence that a version fails more often than it may: looked at after every failure, for ever, without crying wolf.

**Method.** An e-detector, that is, a CUSUM (Page 1954) of e-processes, as Shin, Ramdas and Rinaldo (2022) have it.
One e-process starts with every call of the version and stakes nothing until a call fails. From then on each failure
multiplies it by `win` > 1, each success by `keep` < 1, and each failure of the stable version by `cost` < 1, so
chosen that it can't be expected to grow while

    error rate <= limit                                                               (`Bet.against_limit`)
    error rate <= floor + ratio x the stable version's error rate at that time        (`Bet.against_stable`)

whatever these rates are and however they change. The e-processes that wait since the last failure are alike, so one
number holds them all: after a failure, evidence = max(evidence x factors, calls since the failure before).

**Bound** (docs/decisions/0013). The chance that evidence reaches c within N calls of a version within its limits is
at most N / c; for rates that stay the same, the average run length to a false alarm is c or more (Lorden 1971).

**Cost.** Between two failures evidence can only fall, by an amount that follows from the counts. So it is brought up
to date at failures of the version alone, exactly, and its successes cost nothing.

Numbers may be floats or numpy arrays with an element for each of many runs, so that simulations run this very code.
That is why there is arithmetic here where branches would be expected.
"""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from nstarx.spec.demotion import DemotionSpec, MinEffect

Number: TypeAlias = Any
"""A float, or an array of floats."""
Sequential = Literal["consecutive_failures", "max_timeout_rate", "max_invalid_rate", "max_error_rate", "min_effect"]
"""The rules that are tested here, by the setting that they hold a version to."""
SEQUENTIAL: tuple[Sequential, ...] = get_args(Sequential)
LATENCY = ("max_p99_ms", "max_p99_ratio")

PLACES = 2
"""The gateways together and the coordinator watch the same calls: each has half of the false alarms that are borne."""
HEAD_START = 1e4
"""The most that a failure after a long quiet time begins with, so that no single failure is ever enough."""
CEILING = 1e100
"""Evidence beyond this says nothing more; it keeps products within the range of floats."""
BURST = 50
"""Failures in one step that count at the most, for the same reason."""
STABLE_STAKES = (0.1, 0.3, 0.7, 0.95)
"""Parts of the largest bet that is possible against the stable version: the small ones pay best for versions that are a
little worse, the large ones for those that are much worse. The mean of the bets is tested."""
LIMIT_MULTIPLES = (1.0, 4.0)
"""Stakes against a limit, as multiples of it: they pay best at about twice and five times the limit."""
LIMIT_STAKES = (0.3, 0.9)
"""Further stakes against a limit, for versions that fail at about that rate."""
USUAL_LIMIT = 0.05
"""The error rate beyond which failures in a row are no chance, where neither limit nor stable version says more."""
HIGHEST = 0.9
"""No version is given leave to fail more often than this."""
HISTORY = 5000
"""Calls of the stable version that its usual error rate is known from, at the least, once there have been so many."""
SHARE = 50
"""Calls of the version that the split between it and the stable version is known from, at the least."""
DOUBT = 6.9
"""ln(1000): the stable version's usual error rate is taken at its upper confidence bound of 99.9 %."""
ALIBI = 13.0
"""ln(440,000): how much likelier it must be that the stable version is better than that both share a bad spell."""
IDLE = 0.05
"""A stable version with fewer calls than this for each of the version's is not waited for."""


def where(condition: Number, then: Number, otherwise: Number) -> Number:
    if isinstance(condition, bool):
        return then if condition else otherwise
    found: Number = np.where(condition, then, otherwise)
    return found[()]


def least(a: Number, b: Number) -> Number:
    return where(a < b, a, b)


def most(a: Number, b: Number) -> Number:
    return where(a < b, b, a)


class Seen(NamedTuple):
    """Cumulative counts of a version and, at the same moment, of the stable version."""

    calls: Number = 0
    failures: Number = 0
    timeouts: Number = 0
    invalid: Number = 0
    stable_calls: Number = 0
    stable_failures: Number = 0

    def since(self, earlier: "Seen") -> "Seen":
        return Seen(*(now - then for now, then in zip(self, earlier, strict=True)))

    def held(self, rule: Sequential) -> Number:
        """What the rule counts as failures."""
        if rule == "max_timeout_rate":
            return self.timeouts
        return self.invalid if rule == "max_invalid_rate" else self.failures


NOTHING = Seen()


class Bet(NamedTuple):
    """Factors of an e-process."""

    win: Number
    """At a failure of the version."""
    keep: Number
    """At a success."""
    cost: Number
    """At a failure of the stable version."""

    @classmethod
    def against_limit(cls, limit: Number, stake: Number) -> "Bet":
        """Pays when the error rate is above `limit`, and best at limit + stake x (1 - limit): a likelihood ratio. A
        stake of 1 loses all at the first success, and so bets on failures in a row."""
        return cls(1 + stake * (1 - limit) / limit, 1 - stake, 1.0)

    @classmethod
    def against_stable(cls, per_call: Number, effect: MinEffect, stake: float) -> "Bet":
        """Pays when the error rate is above floor + ratio x the stable version's. The stable version has `per_call`
        calls for each one of the version: the more it has, the more a failure of the version alone tells."""
        whole = stake * most(per_call, 1e-9) / effect.ratio
        bet = least(whole, 0.5 / effect.floor)
        return cls(1 + bet * (1 - effect.floor), 1 - bet * effect.floor, 1 - stake * bet / whole)

    def growth(self, calls: Number, failures: Number, stable_failures: Number) -> Number:
        """What the e-process is multiplied by over so many calls, whatever their order."""
        won = self.win ** least(failures, BURST)
        return won * self.keep ** (calls - failures) * self.cost**stable_failures


class Detector(NamedTuple):
    """The evidence for one rule."""

    evidence: tuple[Number, ...]
    """For each stake."""
    start: Seen
    """What had been seen when the present suspicion began: all before the failed call that began it."""
    start_s: Number
    """When that was, in seconds."""

    @property
    def total(self) -> Number:
        return sum(self.evidence) / len(self.evidence)


class Lately(NamedTuple):
    """How many of one thing there were for each of another, of late: counters at two marks in the past, moved on by
    turns."""

    older: tuple[Number, Number] = (0, 0)
    newer: tuple[Number, Number] = (0, 0)

    def moved(self, base: Number, count: Number, size: int) -> "Lately":
        """The marks moved on, if the newer one is at least `size` of the base behind."""
        due = base - self.newer[0] >= size
        (a, b), (c, d) = self
        return Lately((where(due, c, a), where(due, d, b)), (where(due, base, c), where(due, count, d)))

    def since(self, base: Number, count: Number) -> tuple[Number, Number]:
        return base - self.older[0], count - self.older[1]


UNKNOWN = Lately()


class Stable(NamedTuple):
    """What is known about the stable version."""

    per_call: Number = 0.0
    """Its calls for each call of the version, of late."""
    rate: Number = 0.0
    """Its usual error rate."""
    bound: Number = 1.0
    """Upper confidence bound of that, by the Chernoff bound: P(X <= x) <= exp(-(m - x)^2 / 2m) when m are expected."""


class Trail(NamedTuple):
    """All that is kept of a version's past, as of its last failure."""

    detectors: dict[Sequential, Detector]
    """Those of the rules that are switched on."""
    began: Seen
    """Counts when the watch began."""
    seen: Seen
    """Counts at the last failure."""
    run: Number
    """Failures in a row."""
    share: Lately
    """Calls of the stable version for each call of the version."""
    history: Lately
    """Failures of the stable version for each of its calls."""


def rules(policy: DemotionSpec) -> list[Sequential]:
    """The rules that the policy switches on, in the order in which they are asked."""
    return [rule for rule in SEQUENTIAL if getattr(policy, rule)]


def threshold(policy: DemotionSpec) -> float:
    """The evidence that is enough. What false alarms are borne is divided evenly among the rules and the two places."""
    tests = len(rules(policy)) + sum(getattr(policy, rule) is not None for rule in LATENCY)
    return PLACES * tests * 1e6 / policy.false_alarm


def begin(policy: DemotionSpec, seen: Seen = NOTHING, now: Number = 0.0, history: Lately = UNKNOWN) -> Trail:
    """A trail with nothing held against the version. `history` is what an earlier trail knew of the stable version."""
    nothing = seen.calls * 0.0
    detectors = {
        rule: Detector((nothing,) * len(_bets(rule, policy, Stable())), seen, nothing + now) for rule in rules(policy)
    }
    mark = (seen.calls, seen.stable_calls)
    return Trail(detectors, seen, seen, nothing, Lately(mark, mark), history)


def fold(trail: Trail, seen: Seen, now: Number, policy: DemotionSpec) -> Trail:
    """The trail brought up to a moment with at least one failure since.

    With one failure, the last of the calls, this is exact. With several, whose order nobody knows, all of them are one
    step of the e-processes, and those that wait begin after it: the bound holds all the same.
    """
    stable, new = known(trail, seen, policy), seen.since(trail.seen)
    return trail._replace(
        detectors={
            rule: _stepped(detector, rule, _bets(rule, policy, stable), new, seen, now)
            for rule, detector in trail.detectors.items()
        },
        seen=seen,
        run=where(new.calls > new.failures, 1, trail.run + new.failures),
        share=trail.share.moved(seen.calls, seen.stable_calls, SHARE),
        history=trail.history.moved(seen.stable_calls, seen.stable_failures, HISTORY),
    )


def _stepped(
    detector: Detector, rule: Sequential, bets: tuple[Bet, ...], new: Seen, seen: Seen, now: Number
) -> Detector:
    failures = new.held(rule)
    waiting = least(new.calls, HEAD_START) * (failures > 0)
    grown = _grown(detector, bets, new, failures)
    evidence = tuple(least(most(e, waiting), CEILING) for e in grown)
    fresh = sum(grown) < waiting * len(grown)
    if fresh is False:
        return Detector(evidence, detector.start, detector.start_s)
    start = (where(fresh, a, b) for a, b in zip(_before(seen, new), detector.start, strict=True))
    return Detector(evidence, Seen(*start), where(fresh, now, detector.start_s))


def _grown(detector: Detector, bets: tuple[Bet, ...], new: Seen, failures: Number) -> list[Number]:
    pairs = zip(detector.evidence, bets, strict=True)
    return [e * bet.growth(new.calls, failures, new.stable_failures) for e, bet in pairs]


def _before(seen: Seen, new: Seen) -> Seen:
    """What had been seen before the new failures, which came last."""
    return Seen(
        seen.calls - new.failures,
        seen.failures - new.failures,
        seen.timeouts - new.timeouts,
        seen.invalid - new.invalid,
        seen.stable_calls,
        seen.stable_failures,
    )


def known(trail: Trail, seen: Seen, policy: DemotionSpec) -> Stable:
    """What is known about the stable version by now."""
    calls, others = trail.share.since(seen.calls, seen.stable_calls)
    base, failures = trail.history.since(seen.stable_calls, seen.stable_failures)
    bound = failures + DOUBT + (DOUBT**2 + 2 * DOUBT * failures) ** 0.5
    return Stable(others / most(calls, 1), failures / most(base, 1), bound / most(base, 1))


def limit(rule: Sequential, policy: DemotionSpec, stable: Stable) -> Number:
    """The error rate that a rule other than the comparison bears, seeing how the stable version usually does.

    Nobody has to be better than the version that would take its place, so the stable version's own rate is always
    borne. For failures in a row, less is borne where the stable version is known to be better than the limit asks.
    """
    if rule in ("max_timeout_rate", "max_invalid_rate"):
        return getattr(policy, rule)
    effect = policy.min_effect or MinEffect()
    borne = most(policy.max_error_rate or USUAL_LIMIT, effect.ratio * stable.rate)
    if rule == "consecutive_failures" and policy.min_effect:
        borne = least(borne, effect.floor + effect.ratio * stable.bound)
    return least(borne, HIGHEST)


def _bets(rule: Sequential, policy: DemotionSpec, stable: Stable) -> tuple[Bet, ...]:
    if rule == "min_effect":
        effect = policy.min_effect or MinEffect()
        return tuple(Bet.against_stable(stable.per_call, effect, stake) for stake in STABLE_STAKES)
    borne = limit(rule, policy, stable)
    if rule == "consecutive_failures":
        return (Bet.against_limit(borne, 1.0),)
    multiples = (least(multiple * borne, HIGHEST) for multiple in LIMIT_MULTIPLES)
    return tuple(Bet.against_limit(borne, stake) for stake in (*multiples, *LIMIT_STAKES))


def fired(trail: Trail, policy: DemotionSpec) -> dict[Sequential, Number]:
    """For each rule, whether its evidence is enough to demote."""
    return {rule: _fired(rule, detector, trail, policy) for rule, detector in trail.detectors.items()}


def _fired(rule: Sequential, detector: Detector, trail: Trail, policy: DemotionSpec) -> Number:
    enough = detector.total >= threshold(policy)
    if enough is False or not np.any(enough):
        return enough
    if rule == "consecutive_failures":
        enough = enough & (trail.run >= policy.consecutive_failures)
    else:
        enough = enough & (trail.seen.calls - trail.began.calls >= policy.min_requests)
    return enough if rule == "min_effect" else enough & _alibi(rule, detector, trail, policy)


def _alibi(rule: Sequential, detector: Detector, trail: Trail, policy: DemotionSpec) -> Number:
    """Whether the stable version did well, and better, since the suspicion began.

    A dependency that both share may be down. Then only the comparison, which is sound in any case, may blame one of the
    two. The other rules are bounded by rates that were usual, so they need a witness from the very time.
    """
    stable, new = known(trail, trail.seen, policy), trail.seen.since(detector.start)
    borne = least(limit(rule, policy, stable), policy.max_error_rate or USUAL_LIMIT)
    well = new.stable_failures <= borne * new.stable_calls
    return well & ((_better(new) >= ALIBI) | (stable.per_call < IDLE))


def _better(new: Seen) -> Number:
    """Logarithm of the likelihood ratio of two error rates to one that both versions share."""
    together = _likelihood(new.failures + new.stable_failures, new.calls + new.stable_calls)
    return _likelihood(new.failures, new.calls) + _likelihood(new.stable_failures, new.stable_calls) - together


def _likelihood(failures: Number, calls: Number) -> Number:
    """Largest logarithm of the likelihood of so many failures."""
    successes, calls = most(calls - failures, 1e-9), most(calls, 1e-9)
    failures = most(failures, 1e-9)
    return failures * np.log(failures / calls) + successes * np.log(successes / calls)


def fading(trail: Trail, seen: Seen, policy: DemotionSpec) -> dict[Sequential, float]:
    """The evidence for each rule by now, when there has been no further failure since the trail's last."""
    stable, new = known(trail, seen, policy), seen.since(trail.seen)
    return {
        rule: sum(_grown(detector, _bets(rule, policy, stable), new, 0)) / len(detector.evidence)
        for rule, detector in trail.detectors.items()
    }
