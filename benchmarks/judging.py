"""How soon a bad version is demoted, and how rarely a good one: simulations of the very code that runs live.

Only failed calls are simulated one by one, for only they are looked at; the gaps between them are drawn. Questions
about mistakes need thousands of runs of a million calls, which `judging.sequential` takes side by side, as arrays.
Seeds are fixed. Run as `python -m benchmarks.judging`; takes about two minutes on one CPU.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from judging.sequential import Seen, begin, fired, fold
from judging.watch import Survey, Watch
from judging.windows import Counts
from nstarx.spec.demotion import DemotionSpec

Array = NDArray[np.float64]

POLICY = DemotionSpec()
USUAL = 0.001
"""Error rate of a healthy version, where nothing else is said."""
CALLS_PER_SECOND = 100
"""To the candidate."""
GATEWAYS = 2
REPORT_AFTER = 2
"""Calls to the candidate between a failure and the coordinator's hearing of it: 20 ms."""
MOST_CALLS = 20_000
"""Calls after which a bad version counts as never demoted."""


# Bad versions


@dataclass(frozen=True)
class Rise:
    """A version whose error rate rises, and after how many of its calls it was demoted."""

    title: str
    share: float
    """Its part of the traffic; the stable version has the rest."""
    rate: float
    """From the rise on."""
    quiet: int
    """Calls before the rise, at the usual rate."""
    runs: int
    wanted: int | None = None
    """What the median may be."""
    calls: tuple[int, ...] = ()
    """From the rise to the demotion, run by run."""
    rules: tuple[str, ...] = ()
    """The rules that were broken, run by run."""

    @property
    def median(self) -> float:
        return float(np.median(self.calls))

    @property
    def p95(self) -> float:
        return float(np.quantile(self.calls, 0.95))

    @property
    def met(self) -> bool | None:
        return None if self.wanted is None else self.median <= self.wanted


RISES = (
    Rise("errors rise from 0.1 % to 5 %", 0.1, 0.05, 2000, 400, wanted=400),
    Rise("errors rise from 0.1 % to 1 %", 0.1, 0.01, 2000, 100),
    Rise("errors rise from 0.1 % to 20 %", 0.1, 0.2, 2000, 200),
    Rise("errors rise from 0.1 % to 100 %", 0.1, 1.0, 2000, 200, wanted=50),
    Rise("fails every call from the first on, the stable version being new too", 0.1, 1.0, 0, 200, wanted=50),
    Rise("errors rise from 0.1 % to 5 %", 0.01, 0.05, 2000, 200),
    Rise("errors rise from 0.1 % to 5 %", 0.5, 0.05, 2000, 200),
    Rise("errors rise from 0.1 % to 5 %", 0.9, 0.05, 2000, 30),
    Rise("errors rise from 0.1 % to 20 %", 0.9, 0.2, 2000, 100),
    Rise("errors rise from 0.1 % to 100 %", 0.9, 1.0, 2000, 200),
)


def measured(rise: Rise) -> Rise:
    """Every run with a seed of its own."""
    ends = [demotion(rise, np.random.default_rng(seed)) for seed in range(rise.runs)]
    return replace(rise, calls=tuple(calls for calls, _ in ends), rules=tuple(rule for _, rule in ends))


def demotion(rise: Rise, random: np.random.Generator) -> tuple[int, str]:
    """Calls from the rise to the demotion by a gateway or the coordinator, whichever is first, and the rule."""
    number = np.arange(rise.quiet + MOST_CALLS)
    fails = random.random(number.size) < np.where(number < rise.quiet, USUAL, rise.rate)
    world = World(number, fails, rise.share, random)
    for call in np.flatnonzero(fails):
        rule = world.failed(int(call))
        if rule:
            return int(call) + 1 - rise.quiet, rule
    return MOST_CALLS, "none"


class World:
    """Two gateways, each with a watch, and a coordinator. Calls are dealt to the gateways by turns."""

    def __init__(self, number: Any, fails: Any, share: float, random: np.random.Generator) -> None:
        per_call = (1 - share) / share
        new = np.diff(np.floor((number + 1) * per_call), prepend=0).astype(int)
        self.failures = _by_gateway(fails)
        self.stable_calls = _by_gateway(new)
        self.stable_failures = _by_gateway(random.binomial(new, USUAL))
        self.watches = [Watch("candidate", POLICY, "stable", calls=0) for _ in range(GATEWAYS)]
        self.survey = Survey("candidate", POLICY, "stable")
        self._report(-1)

    def failed(self, call: int) -> str | None:
        """What one of the three says to a failed call; the coordinator hears of it a little later."""
        gateway, now = call % GATEWAYS, call / CALLS_PER_SECOND
        at = self._counts(gateway, call)
        alarm = self.watches[gateway].failed(500, str(call), at.calls, now, *self._stable(gateway, call))
        if alarm:
            return alarm.evidence.rule
        self._report(call + REPORT_AFTER)
        verdict = self.survey.judge(now + REPORT_AFTER / CALLS_PER_SECOND)
        return verdict.evidence.rule if verdict.verdict == "demote" else None

    def _report(self, call: int) -> None:
        for gateway in range(GATEWAYS):
            stable = Counts(*self._stable(gateway, call))
            self.survey.report(str(gateway), self._counts(gateway, call), call / CALLS_PER_SECOND, stable)

    def _counts(self, gateway: int, call: int) -> Counts:
        calls = (call + GATEWAYS - gateway) // GATEWAYS
        return Counts(calls, _at(self.failures[gateway], call))

    def _stable(self, gateway: int, call: int) -> tuple[int, int]:
        return _at(self.stable_calls[gateway], call), _at(self.stable_failures[gateway], call)


def _by_gateway(events: Any) -> list[Any]:
    """Cumulative numbers of events at each gateway, after each call."""
    turn = np.arange(len(events)) % GATEWAYS
    return [np.cumsum(np.where(turn == gateway, events, 0)) for gateway in range(GATEWAYS)]


def _at(cumulative: Any, call: int) -> int:
    return int(cumulative[min(call, len(cumulative) - 1)]) if call >= 0 else 0


# Good versions


@dataclass(frozen=True)
class Course:
    """Error rates over time, the same for both versions: (calls to the candidate, rate) one after another."""

    phases: tuple[tuple[int, float], ...]

    @property
    def calls(self) -> int:
        return sum(calls for calls, _ in self.phases)

    @property
    def _knots(self) -> tuple[Array, Array]:
        """Numbers of calls, and the hazard that has summed up by then; the last rate goes on after the end."""
        lengths = np.array([*(calls for calls, _ in self.phases), 1e12])
        rates = np.array([rate for _, rate in (*self.phases, self.phases[-1])])
        hazards = -np.log1p(-np.minimum(rates, 1 - 1e-12)) * lengths
        return np.concatenate(([0.0], np.cumsum(lengths))), np.concatenate(([0.0], np.cumsum(hazards)))

    def next_failure(self, calls: Array, random: np.random.Generator) -> Array:
        """The number of the next call that fails, after so many calls."""
        numbers, hazards = self._knots
        reached = np.interp(calls, numbers, hazards) + random.exponential(size=calls.size)
        found: Array = np.maximum(np.ceil(np.interp(reached, hazards, numbers)), calls + 1)
        return found

    def stable_failures(self, before: Array, after: Array, per_call: float, random: np.random.Generator) -> Array:
        """Failures of the stable version between two calls of the candidate, of which it has `per_call` for each."""
        total, start = np.zeros(before.size), 0.0
        for calls, rate in (*self.phases, (10**12, self.phases[-1][1])):
            low, high = np.clip(before, start, start + calls), np.clip(after, start, start + calls)
            total += random.binomial((np.floor(high * per_call) - np.floor(low * per_call)).astype(int), rate)
            start += calls
        return total


@dataclass(frozen=True)
class Blame:
    """A candidate that is as good as the stable version, and how many runs demoted it all the same."""

    title: str
    share: float
    course: Course
    runs: int = 3000
    watches: int = 1
    """Watches that have equal parts of the calls: 1 is the coordinator's view, or that of a gateway alone."""
    wanted: float | None = None
    """The share of runs with a false demotion that is allowed."""
    demoted: int = 0

    @property
    def bound(self) -> float:
        """Upper confidence bound of 95 % on the share of runs with a false demotion (Clopper and Pearson 1934)."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(self.demoted, self.runs, middle) > 0.05 else (low, middle)
        return high

    @property
    def met(self) -> bool | None:
        return None if self.wanted is None else self.bound < self.wanted


def at_most(number: int, runs: int, chance: float) -> float:
    """How likely so few of so many runs are, for a chance above 0 and below 1."""
    odds = math.log(chance / (1 - chance))
    logs = (_log_choices(runs, k) + k * odds for k in range(number + 1))
    return sum(math.exp(log + runs * math.log1p(-chance)) for log in logs)


def _log_choices(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def steady(title: str, rate: float, calls: int, watches: int = 1) -> Blame:
    return Blame(title, 0.1, Course(((calls, rate),)), watches=watches, wanted=0.001)


STEADY = (
    steady("both fail 0 %", 0.0, 100_000),
    steady("both fail 0.1 %", 0.001, 100_000),
    steady("both fail 0.1 %, two gateways alone", 0.001, 100_000, watches=2),
    steady("both fail 2 %", 0.02, 100_000),
    steady("both fail 2 %, two gateways alone", 0.02, 100_000, watches=2),
    steady("both fail 20 %", 0.2, 25_000),
    steady("both fail 0 %", 0.0, 1_000_000),
    steady("both fail 0.1 %", 0.001, 1_000_000),
    steady("both fail 2 %", 0.02, 1_000_000),
)
SPELLS = tuple(
    Blame(f"both fail {rate:.0%} for 500 calls", share, Course(((2000, USUAL), (500, rate), (5000, USUAL))))
    for share in (0.1, 0.5, 0.9)
    for rate in (0.05, 0.2, 0.5, 1.0)
)


def blamed(blame: Blame, seed: int) -> Blame:
    """All runs side by side, from failure to failure."""
    random, per_call = np.random.default_rng(seed), (1 - blame.share) / blame.share
    if not any(rate for _, rate in blame.course.phases):
        return blame
    lanes = blame.runs * blame.watches
    course = Course(tuple((calls // blame.watches, rate) for calls, rate in blame.course.phases))
    demoted = np.zeros(lanes, dtype=bool)
    for calls, alarm in judged(course, per_call, lanes, random):
        demoted |= alarm & (calls <= course.calls)
    return replace(blame, demoted=int(demoted.reshape(blame.runs, blame.watches).any(axis=1).sum()))


def judged(course: Course, per_call: float, lanes: int, random: np.random.Generator) -> Iterator[tuple[Array, Any]]:
    """Step by step, for each run: the number of the call that failed, and whether a rule was broken."""
    calls, stable_failures, none = np.zeros(lanes), np.zeros(lanes), np.zeros(lanes)
    trail, failures = begin(POLICY, Seen(none, none, none, none, none, none)), 0
    while calls.min() < course.calls:
        before, calls, failures = calls, course.next_failure(calls, random), failures + 1
        stable_failures = stable_failures + course.stable_failures(before, calls, per_call, random)
        seen = Seen(calls, none + failures, none, none, np.floor(calls * per_call), stable_failures)
        trail = fold(trail, seen, 0.0, POLICY)
        yield calls, np.logical_or.reduce(list(fired(trail, POLICY).values()))


# Report


def main() -> int:
    options = arguments().parse_args()
    started = time.monotonic()
    rises: list[Rise] = []
    blames: list[Blame] = []
    for rise in RISES:
        rises.append(measured(rise))
        print(*rise_row(rises[-1]), sep=" | ", flush=True)
    for seed, blame in enumerate((*STEADY, *SPELLS)):
        blames.append(blamed(blame, seed))
        print(*blame_row(blames[-1]), sep=" | ", flush=True)
    publish(rises, blames, options.output)
    print(f"took {time.monotonic() - started:.0f} s")
    return 1 if False in [*(rise.met for rise in rises), *(blame.met for blame in blames)] else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder for the results")
    return parser


def publish(rises: Sequence[Rise], blames: Sequence[Blame], output: Path) -> None:
    text = f"{rises_table(rises)}\n\n{blames_table(blames)}"
    result = {"rises": [asdict(rise) for rise in rises], "blames": [asdict(blame) for blame in blames]}
    report.save(output, "judging", result, text)
    print(f"\n{text}")


def rises_table(rises: Sequence[Rise]) -> str:
    head = [
        "bad candidate",
        "its share",
        "runs",
        "its calls to demotion, median",
        "95th percentile",
        "most",
        "wanted",
        "met",
    ]
    return report.table(head, map(rise_row, rises))


def rise_row(rise: Rise) -> list[str]:
    wanted = "" if rise.wanted is None else f"median ≤ {rise.wanted}"
    figures = [f"{rise.median:,.0f}", f"{rise.p95:,.0f}", f"{max(rise.calls):,}"]
    return [rise.title, f"{rise.share:.0%}", f"{rise.runs:,}", *figures, wanted, answer(rise.met)]


def blames_table(blames: Sequence[Blame]) -> str:
    head = [
        "candidate as good as the stable version",
        "its share",
        "its calls",
        "runs",
        "demoted",
        "chance at most",
        "wanted",
    ]
    return report.table([*head, "met"], map(blame_row, blames))


def blame_row(blame: Blame) -> list[str]:
    wanted = "" if blame.wanted is None else f"< {blame.wanted:.1%}"
    figures = [f"{blame.course.calls:,}", f"{blame.runs:,}", str(blame.demoted), f"{blame.bound:.4%}"]
    return [blame.title, f"{blame.share:.0%}", *figures, wanted, answer(blame.met)]


def answer(met: bool | None) -> str:
    return "" if met is None else ("yes" if met else "no")


if __name__ == "__main__":
    sys.exit(main())
