"""The two who watch a version: every gateway by itself, call by call, and the coordinator over the counts of all."""

from collections import deque
from collections.abc import Iterable

from judging.judge import failure_evidence, judge
from judging.readings import Readings, Span
from judging.sequential import LATENCY, UNKNOWN, Seen, Trail, begin, fold
from judging.verdict import Demote, Keep, NotEnoughData
from judging.windows import INVALID_OUTPUT, NO_CALLS, TIMEOUT, Counts, Failing, Windows, is_failure
from nstarx.spec.demotion import DemotionSpec

REMEMBERED = 64
"""Failed calls whose ids are kept; evidence names the first ten since the suspicion began."""


class Watch:
    """A gateway's own fuse for one route and version. It is told of failed calls alone; the others cost nothing.

    The counters that it is given only grow. Rescues and shadows are to be left out: a call counts for the version that
    was chosen for it, so that the split says how many there should be of both.
    """

    __slots__ = ("_failing", "_failures", "_invalid", "_timeouts", "_trail", "policy", "stable", "version")

    def __init__(
        self,
        version: str,
        policy: DemotionSpec,
        stable: str | None = None,
        *,
        calls: int | None = None,
        now: float = 0.0,
        stable_calls: int = 0,
        stable_failures: int = 0,
    ) -> None:
        """`calls` and the like are where the counters stand; not given, the watch begins with the first failed call."""
        self.version = version
        self.policy = policy
        self.stable = stable
        self._failures = self._timeouts = self._invalid = 0
        self._failing: deque[Failing] = deque(maxlen=REMEMBERED)
        self._trail: Trail | None = None
        if calls is not None:
            self.reset(calls, now, stable_calls, stable_failures)

    def failed(
        self, status: int, request_id: str, calls: int, now: float, stable_calls: int = 0, stable_failures: int = 0
    ) -> Demote | None:
        """A call has ended with a status. `calls` are the version's ended calls, this one among them; what the
        stable version has done by now is compared. Takes some fifty microseconds. None as long as nothing is proven."""
        if not is_failure(status):
            return None
        if self._trail is None:
            self.reset(calls - 1, now, stable_calls, stable_failures)
        self._failures += 1
        self._timeouts += status == TIMEOUT
        self._invalid += status == INVALID_OUTPUT
        self._failing.append(Failing(now, request_id))
        return self._judged(self._seen(calls, stable_calls, stable_failures), now)

    def reset(self, calls: int, now: float, stable_calls: int = 0, stable_failures: int = 0) -> None:
        """Start anew from these counts: a version that comes back is judged by what it does from then on."""
        self._failing.clear()
        history = self._trail.history if self._trail else UNKNOWN
        self._trail = begin(self.policy, self._seen(calls, stable_calls, stable_failures), now, history)

    def _seen(self, calls: int, stable_calls: int, stable_failures: int) -> Seen:
        return Seen(calls, self._failures, self._timeouts, self._invalid, stable_calls, stable_failures)

    def _judged(self, seen: Seen, now: float) -> Demote | None:
        self._trail = trail = fold(self._trail or begin(self.policy), seen, now, self.policy)
        readings = Readings(self.version, self.stable, trail, seen, tuple(self._failing))
        evidence = failure_evidence(readings, self.policy, now)
        return Demote(evidence=evidence) if evidence else None


class Survey:
    """The coordinator's view of one route and version: the counts of all gateways, summed.

    Between two verdicts gateways may report in any order. What a gateway counted before its first report here is no
    news; one that counts from zero again has started again.
    """

    def __init__(self, version: str, policy: DemotionSpec, stable: str | None = None, now: float = 0.0) -> None:
        self.version = version
        self.policy = policy
        self.stable = stable
        self._reported: dict[str, tuple[Counts, Counts, tuple[str, ...]]] = {}
        self._seen = Seen()
        self._is_timed = any(getattr(policy, rule) for rule in LATENCY)
        self._start(begin(policy, now=now), now)

    def _start(self, trail: Trail, now: float) -> None:
        self._trail = trail
        self._judged_at = now
        self._judged_calls = self._seen.calls
        self._failing: tuple[Failing, ...] = ()
        self._accused = self._stable = Windows.over(self.policy.interval_s)

    def report(
        self, gateway: str, counts: Counts, now: float, stable: Counts = NO_CALLS, failing: Iterable[str] = ()
    ) -> None:
        """Cumulative counts of a gateway, of both versions at one moment, and the ids of its newest failed calls."""
        ids = tuple(failing)
        before, stable_before, known = self._reported.get(gateway, (counts, stable, ids))
        self._reported[gateway] = counts, stable, ids
        failed = tuple(Failing(now, id) for id in ids if id not in known)
        self._add(counts.since(before), stable.since(stable_before), failed, now)

    def _add(self, new: Counts, stable: Counts, failed: tuple[Failing, ...], now: float) -> None:
        self._failing = tuple(sorted({*self._failing, *failed})[-REMEMBERED:])
        self._accused = self._accused.add(new, now, failed)
        self._stable = self._stable.add(stable, now)
        more = Seen(new.calls, new.failures, new.timeouts, new.invalid, stable.calls, stable.failures)
        self._seen = Seen(*(a + b for a, b in zip(self._seen, more, strict=True)))

    def left(self, gateway: str) -> None:
        """A gateway is gone; what it counted stays."""
        self._reported.pop(gateway, None)

    @property
    def has_news(self) -> bool:
        """Whether failures have been reported since the last verdict."""
        return bool(self._seen.failures > self._trail.seen.failures)

    def judge(self, now: float) -> Keep | Demote | NotEnoughData:
        """The verdict by what has been reported up to now. To be asked for once a second, and soon after a failure."""
        if self.has_news:
            self._trail = fold(self._trail, self._seen, self._judged_at, self.policy)
        verdict = judge(self.readings(now), self.policy, now)
        self._judged_at, self._judged_calls = now, self._seen.calls
        return verdict

    def readings(self, now: float) -> Readings:
        """What a verdict is based on."""
        reach = self._accused.reach(self.policy.min_requests, self.policy.interval_s, now)
        return Readings(
            version=self.version,
            stable=self.stable,
            trail=self._trail,
            seen=self._seen,
            failing=self._failing,
            recent=self._accused.last(reach, now),
            spans=self._spans(reach, now) if self._is_timed else (),
            fresh=self._seen.calls - self._judged_calls,
        )

    def _spans(self, reach: float, now: float) -> tuple[Span, ...]:
        return tuple(Span.of(self._accused, self._stable, seconds, now) for seconds in (reach, self._accused.kept_s))

    def reset(self, now: float) -> None:
        """Start anew from the present counts: a version that comes back is judged by what it does from then on."""
        self._start(begin(self.policy, self._seen, now, self._trail.history), now)
