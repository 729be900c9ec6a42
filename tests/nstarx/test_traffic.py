"""Two readings of a gateway's counters, as people read them."""

from typing import Any

from nstarx.histogram import BUCKETS, bucket_of
from nstarx.traffic import totals, window

MS = 1_000_000


def entry(codes: dict[str, int], ref: str = "iris@1.0.0", gateway: str = "a", ms: float = 1.0) -> dict[str, Any]:
    latency = [0] * BUCKETS
    latency[bucket_of(int(ms * MS))] = sum(codes.values())
    return {"gateway": gateway, "route": "iris", "ref": ref, "role": "primary", "codes": codes, "latency": latency}


def test_window_is_the_difference_of_two_readings() -> None:
    before = [entry({"200": 10}), entry({"200": 10}, "iris@1.1.0")]
    after = [entry({"200": 100, "500": 5, "400": 5}), entry({"200": 30}, "iris@1.1.0")]
    seen = window(before, after, 2.0)
    assert (seen.requests, seen.errors, seen.seconds) == (120, 5, 2.0)
    assert seen.shares == {"iris@1.0.0": 100 / 120, "iris@1.1.0": 20 / 120}
    assert seen.p50_s is not None
    assert 0.0008 < seen.p50_s < 0.0013


def test_gateways_are_summed() -> None:
    seen = window([], [entry({"200": 3}), entry({"200": 4}, gateway="b")], 1.0)
    assert (seen.requests, seen.shares) == (7, {"iris@1.0.0": 1.0})


def test_gateway_that_counts_from_zero_again_is_counted_from_zero() -> None:
    assert window([entry({"200": 100})], [entry({"200": 5})], 1.0).requests == 5
    seen = window([entry({"200": 100}, ms=1)], [entry({"503": 150}, ms=9)], 1.0)
    assert (seen.requests, seen.errors) == (150, 150)


def test_gateway_that_has_left_does_not_count_backwards() -> None:
    seen = window([entry({"200": 100}), entry({"200": 5}, gateway="b")], [entry({"200": 101})], 1.0)
    assert seen.requests == 1


def test_nothing_happened() -> None:
    seen = window([entry({"200": 5})], [entry({"200": 5})], 1.0)
    assert (seen.requests, seen.shares, seen.p50_s, seen.p99_s) == (0, {}, None, None)
    assert seen.line() == "0 requests/s  |  no traffic  |  p50 -  p99 -  |  0 errors"
    assert window([], [], 1.0).requests == 0


def test_line_says_it_all() -> None:
    line = window([], [entry({"200": 1500, "503": 500}, ms=2), entry({"200": 2000}, "iris@1.1.0", ms=2)], 2.0).line()
    assert line.startswith("2,000 requests/s  |  iris@1.0.0 50%  iris@1.1.0 50%  |  p50 ")
    assert line.endswith("500 errors")


def test_totals_are_everything_since_the_start() -> None:
    assert totals([entry({"200": 9, "500": 1})]).errors == 1


def test_slow_tail_shows_in_the_high_quantile_alone() -> None:
    seen = window([], [entry({"200": 95}, ms=1), entry({"200": 5}, gateway="b", ms=100)], 1.0)
    assert seen.p50_s is not None
    assert seen.p99_s is not None
    assert seen.p50_s < 0.002
    assert 0.08 < seen.p99_s < 0.13


def test_copies_for_shadows_are_nobodys_answers() -> None:
    copies = entry({"200": 50, "500": 50}, "iris@1.1.0", ms=100) | {"role": "shadow"}
    seen = window([], [entry({"200": 100}), copies], 1.0)
    assert (seen.requests, seen.errors, seen.shares) == (100, 0, {"iris@1.0.0": 1.0})
