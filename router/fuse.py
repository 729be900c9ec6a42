"""A gateway's own eye on one version of one route: it costs nothing until a call fails, and then blows at once."""

from collections.abc import Callable

from judging.tallied import tallied
from judging.verdict import Demote
from judging.watch import Watch
from judging.windows import Counts, is_failure
from nstarx.spec.demotion import DemotionSpec
from router.tally import Tally

KEPT = 10
"""Ids of failed calls that a tally keeps."""

OnVerdict = Callable[[str, str, Demote], None]
"""Called with route, version and verdict."""


class Fuse:
    """Watches a version beside the one that it is compared with."""

    def __init__(
        self,
        tally: Tally,
        reference: Tally | None,
        policy: DemotionSpec,
        on_verdict: OnVerdict,
        on_failure: Callable[[], None],
    ) -> None:
        """`on_failure` is told of every failure, so that the others can hear of it soon."""
        self.tally = tally
        self.reference = reference
        self.policy = policy
        self._on_verdict = on_verdict
        self._on_failure = on_failure
        self._watch = Watch(tally.ref, policy, reference.ref if reference else None)

    def failed(self, status: int, request_id: str, now: float) -> None:
        """A call has ended badly, and has been counted. `status` may also be INVALID_OUTPUT or LOST_ANSWER."""
        if not is_failure(status):
            return
        failing = self.tally.failing
        failing.append(request_id)
        del failing[:-KEPT]
        verdict = self._watch.failed(status, request_id, counts(self.tally).calls, now, *self._compared())
        self._on_failure()
        if verdict:
            self._on_verdict(self.tally.route, self.tally.ref, verdict)

    def reset(self, now: float) -> None:
        """The version comes back to traffic, and is judged by what it does from now on."""
        self._watch.reset(counts(self.tally).calls, now, *self._compared())

    def _compared(self) -> tuple[int, int]:
        if self.reference is None:
            return 0, 0
        seen = counts(self.reference)
        return seen.calls, seen.failures


def counts(tally: Tally) -> Counts:
    """What a tally says about its version, latency left out."""
    return tallied(tally.codes, tally.invalid, tally.lost)
