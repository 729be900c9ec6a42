"""How long a call may take before a second one is made beside it."""

from collections.abc import Sequence

from nstarx.histogram import BUCKETS, quantile
from nstarx.spec.retry import HedgeSpec

HALF_LIFE_S = 10.0
"""Latencies count half after this time."""
MIN_SAMPLES = 100.0
"""Answers, weighted by their age, below which a quantile means little and nothing is hedged."""


class HedgeDelay:
    """A quantile of the recent latencies, renewed about once a second from a histogram that counts them anyway.

    Hedging does not shift it: a hedged call has taken longer than the delay before its second try began, so the same
    share of calls stays above the delay however much sooner they end.
    """

    __slots__ = ("_at", "_recent", "_seen", "_spec", "ns")

    def __init__(self, spec: HedgeSpec, now: float) -> None:
        self._spec = spec
        self.ns: int | None = None if spec.after_s is None else int(spec.after_s * 1e9)
        """The delay in nanoseconds; None while too little is known."""
        self._recent = [0.0] * BUCKETS
        self._seen: Sequence[int] = [0] * BUCKETS
        self._at = now

    def refresh(self, latency: Sequence[int], now: float) -> None:
        """Take in the cumulative histogram of calls that succeeded, as it is at `now` (seconds)."""
        if self._spec.after_s is not None:
            return
        kept = 0.5 ** ((now - self._at) / HALF_LIFE_S)
        rows = zip(self._recent, latency, self._seen, strict=True)
        self._recent = recent = [old * kept + max(count - seen, 0) for old, count, seen in rows]
        self._seen, self._at = list(latency), now
        self.ns = self._delay([round(count * 100) for count in recent]) if sum(recent) >= MIN_SAMPLES else None

    def _delay(self, recent: Sequence[int]) -> int:
        seconds = quantile(recent, self._spec.after_quantile) or 0.0
        if self._spec.max_medians is not None:
            seconds = min(seconds, (quantile(recent, 0.5) or 0.0) * self._spec.max_medians)
        return int(seconds * 1e9)
