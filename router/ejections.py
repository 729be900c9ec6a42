"""What becomes of ejections beside the choice of replicas: they are counted, told to the cluster, and shown."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from cluster.events import EventKind
from router.ejection import Ejection, Return
from router.pool import Pool

Tell = Callable[[EventKind, str, str, dict[str, Any]], None]
"""Called with kind, sentence, version and details of an event."""


class Ejections:
    """The ejections of one gateway."""

    def __init__(self, tell: Tell) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """By version, and by the rule that was broken; those that are only reported included."""
        self._tell = tell

    def decided(self, ref: str, decision: Ejection | Return) -> None:
        """A replica is taken out, or would be, or takes requests again."""
        if isinstance(decision, Return):
            details: dict[str, Any] = {"replica": decision.replica, "times": decision.times}
            self._tell(EventKind.REPLICA_RETURNED, decision.sentence, ref, details)
            return
        self.counts[ref, decision.rule] += 1
        details = {name: value for name, value in asdict(decision).items() if name not in ("until", "sentence")}
        self._tell(EventKind.REPLICA_EJECTED, decision.sentence, ref, details)

    def reading(self) -> list[dict[str, Any]]:
        """A copy of the counts for the wire."""
        return [{"ref": ref, "rule": rule, "count": count} for (ref, rule), count in self.counts.items()]


def ejected(pools: Iterable[Pool], ahead: float) -> list[dict[str, Any]]:
    """Replicas that are out now, for the wire. `ahead` is Unix time less that of the monotonic clock, in seconds."""
    return [
        {
            "ref": pool.ref,
            "replica": ejection.replica,
            "rule": ejection.rule,
            "until": ejection.until + ahead,
            "sentence": ejection.sentence,
        }
        for pool in pools
        for ejection in pool.out.values()
    ]
