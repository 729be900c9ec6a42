"""Traffic as people read it: rates, shares and quantiles, from two readings of a gateway's counters."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from nstarx.histogram import merged, quantile

Reading = list[dict[str, Any]]
"""`traffic` of a status document: one entry for each gateway, route, version and role."""


class Window(NamedTuple):
    """What happened between two readings."""

    seconds: float
    requests: int
    errors: int
    """Answers with a status of 500 and above."""
    shares: dict[str, float]
    """Version to its part of the requests."""
    p50_s: float | None
    p99_s: float | None

    def line(self) -> str:
        """One line for a terminal."""
        shares = "  ".join(f"{ref} {share:.0%}" for ref, share in sorted(self.shares.items())) or "no traffic"
        times = f"p50 {_ms(self.p50_s)}  p99 {_ms(self.p99_s)}"
        return f"{self.requests / self.seconds:,.0f} requests/s  |  {shares}  |  {times}  |  {self.errors} errors"


def window(before: Reading, after: Reading, seconds: float) -> Window:
    """The difference of two readings; a gateway that is new, or counts from zero again, counts from zero. Copies for
    shadows answer nobody, and are left out."""
    old = {_key(entry): entry for entry in before}
    answers = [entry for entry in after if entry["role"] != "shadow"]
    deltas = [(entry["ref"], *_delta(old.get(_key(entry)), entry)) for entry in answers]
    by_version: dict[str, int] = {}
    for ref, requests, _, _ in deltas:
        by_version[ref] = by_version.get(ref, 0) + requests
    total = sum(by_version.values())
    latency = merged(histogram for _, _, _, histogram in deltas)
    return Window(
        seconds,
        total,
        sum(errors for _, _, errors, _ in deltas),
        {ref: requests / total for ref, requests in by_version.items() if requests},
        quantile(latency, 0.5),
        quantile(latency, 0.99),
    )


def _key(entry: dict[str, Any]) -> tuple[str, ...]:
    return entry["gateway"], entry["route"], entry["ref"], entry["role"]


def _delta(old: dict[str, Any] | None, new: dict[str, Any]) -> tuple[int, int, list[int]]:
    """(requests, errors, latency histogram) since the old entry."""
    if old is None or any(new["codes"].get(code, 0) < count for code, count in old["codes"].items()):
        old = {"codes": {}, "latency": [0] * len(new["latency"])}
    latency = [a - b for a, b in zip(new["latency"], old["latency"], strict=True)]
    requests = sum(new["codes"].values()) - sum(old["codes"].values())
    return requests, _errors(new["codes"]) - _errors(old["codes"]), latency


def _errors(codes: dict[str, int]) -> int:
    return sum(count for code, count in codes.items() if int(code) >= 500)


def totals(entries: Iterable[dict[str, Any]]) -> Window:
    """Everything since the gateways started, without a rate."""
    return window([], list(entries), 1.0)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"
