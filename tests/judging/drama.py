"""A stage for stories: a candidate, a stable version, two gateways, a coordinator, and a clock moved by hand."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from judging.readings import Readings
from judging.standing import Judged, Standing, advance, may_demote, share, starts_anew
from judging.watch import Survey
from judging.windows import Counts
from nstarx.histogram import BUCKETS, bucket_of
from nstarx.spec.demotion import DemotionSpec

CANDIDATE, STABLE = "iris@1.1.0", "iris@1.0.0"
WEIGHTS = {STABLE: 90.0, CANDIDATE: 10.0}
POLICY, HEALTHY = DemotionSpec(), Standing()


@dataclass(frozen=True)
class Second:
    """What each version does in a second."""

    calls: int = 100
    """To the candidate with its full weight."""
    fails_every: int = 0
    """Every n-th call of the candidate fails; 0 is none."""
    status: int = 500
    ms: float = 5.0
    stable_calls: int = 900
    stable_fails_every: int = 1000
    stable_ms: float = 5.0


def counts(calls: int, every: int, status: int, ms: float, before: int) -> Counts:
    """Of one second; the n-th call is counted from the beginning of the story."""
    failures = (before + calls) // every - before // every if every else 0
    latency = [0] * BUCKETS
    latency[bucket_of(int(ms * 1e6))] = calls
    return Counts.of({200: calls - failures, status: failures}, latency)


@dataclass
class Stage:
    """Plays seconds, and keeps what was said and done."""

    policy: DemotionSpec = POLICY
    standing: Standing = HEALTHY
    fallback: Standing = HEALTHY
    now: float = 0.0
    told: list[Judged] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: ["healthy"])

    def __post_init__(self) -> None:
        self.survey = Survey(CANDIDATE, self.policy, STABLE, now=self.now)
        self.totals = [(Counts(), Counts())] * 2
        self._report(())

    def play(self, seconds: Iterable[Second]) -> "Stage":
        for second in seconds:
            self.now += 1.0
            self._served(second)
            self._judged()
        return self

    def until(self, done: Callable[["Stage"], bool], second: Second, most: int = 10_000) -> "Stage":
        """Seconds alike, until something has come about."""
        for _ in range(most):
            if done(self):
                return self
            self.play([second])
        raise AssertionError(f"it has not come about; {CANDIDATE} is {self.standing.state}")

    def _served(self, second: Second) -> None:
        calls = round(second.calls * share(self.standing))
        for gateway, (mine, stable) in enumerate(self.totals):
            part = calls // 2 + (calls % 2 if gateway else 0)
            new = counts(part, second.fails_every, second.status, second.ms, mine.calls)
            others = counts(second.stable_calls // 2, second.stable_fails_every, 500, second.stable_ms, stable.calls)
            self.totals[gateway] = (mine + new, stable + others)
        self._report(f"{gateway}-{self.now:g}" for gateway in range(2) if calls and second.fails_every)

    def _report(self, failing: Iterable[str]) -> None:
        failing = tuple(failing)
        for gateway, (mine, stable) in enumerate(self.totals):
            ids = [name for name in failing if name.startswith(f"{gateway}-")]
            self.survey.report(str(gateway), mine, self.now, stable, ids)

    def _judged(self) -> None:
        verdict = self.survey.judge(self.now)
        standings = {CANDIDATE: self.standing, STABLE: self.fallback}
        refusal = may_demote(CANDIDATE, WEIGHTS, standings, self.policy, STABLE)
        after = advance(self.standing, verdict, self.policy, self.now, refusal)
        if starts_anew(self.standing, after):
            self.survey.reset(self.now)
        if after.state != self.standing.state:
            self.states.append(after.state)
        self.standing = after
        self.told.append(verdict)

    def readings(self) -> Readings:
        return self.survey.readings(self.now)
