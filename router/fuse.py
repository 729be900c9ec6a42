"""A gateway's own eye on one version of one route: it costs nothing until a call fails, and then blows at once."""

import time
from collections.abc import Callable, Sequence

from judging.tallied import tallied
from judging.verdict import Demote
from judging.watch import Watch
from judging.windows import is_failure
from nstarx.spec.demotion import DemotionSpec
from router.tally import Tally

KEPT = 10
"""Ids of failed calls that a tally keeps."""

OnVerdict = Callable[[str, str, Demote], None]
"""Called with route, version and verdict."""


class Fuse:
    """Watches a version of a route beside the one that it is compared with, over all splits of the route."""

    def __init__(
        self,
        tallies: Sequence[Tally],
        reference: Sequence[Tally],
        policy: DemotionSpec,
        on_verdict: OnVerdict,
        on_failure: Callable[[], None],
    ) -> None:
        """`tallies` are the version's, one for each of its roles. `on_failure` is told of every failure, so that the
        others can hear of it soon."""
        self.tallies = tuple(tallies)
        self.reference = tuple(reference)
        self.policy = policy
        self._on_verdict = on_verdict
        self._on_failure = on_failure
        self._watch = Watch(tallies[0].ref, policy, reference[0].ref if reference else None)
        # What was counted before belongs to another split, or another policy.
        self.reset(time.monotonic())

    def failed(self, status: int, request_id: str, now: float) -> None:
        """A call has ended badly, and has been counted. `status` may also be INVALID_OUTPUT or LOST_ANSWER."""
        if not is_failure(status):
            return
        tally = self.tallies[0]
        tally.failing.append(request_id)
        del tally.failing[:-KEPT]
        verdict = self._watch.failed(status, request_id, _seen(self.tallies)[0], now, *_seen(self.reference))
        self._on_failure()
        if verdict:
            self._on_verdict(tally.route, tally.ref, verdict)

    def reset(self, now: float) -> None:
        """The version comes back to traffic, and is judged by what it does from now on."""
        self._watch.reset(_seen(self.tallies)[0], now, *_seen(self.reference))


def _seen(tallies: Sequence[Tally]) -> tuple[int, int]:
    """Calls and failures that tallies say of their version."""
    counts = [tallied(tally.codes, tally.invalid, tally.lost, spared=tally.spared) for tally in tallies]
    return sum(count.calls for count in counts), sum(count.failures for count in counts)
