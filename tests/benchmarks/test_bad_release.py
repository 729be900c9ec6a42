"""The benchmark of bad releases: what it takes for failed, and when a release counts as gone in time."""

import pytest

from benchmarks.bad_release import MOST_CALLS, MOST_MS, Round, Seen, note, rounds_table
from nstarx.spec.record import parse
from nstarx.spec.route import RouteSpec


def release(calls: int = 10, ms: float = 20.0, failed: int = 0) -> Round:
    return Round(1000, 999.6, failed, {"a": calls - 1, "b": 1}, ms)


@pytest.mark.parametrize(
    ("calls", "ms", "in_time"),
    [(MOST_CALLS, 900.0, True), (MOST_CALLS + 1, MOST_MS, True), (MOST_CALLS + 1, MOST_MS + 1, False)],
)
def test_release_is_gone_in_time_by_the_later_of_calls_and_time(calls: int, ms: float, in_time: bool) -> None:
    assert release(calls, ms).is_gone_in_time is in_time


def test_table_shows_the_worst_and_says_whether_it_is_good_enough() -> None:
    table = rounds_table([release(), release(12, 35.0), release(60, 120.0, failed=2)])
    assert "| requests/s, median | 1,000 |" in table
    assert "| failed client requests | 2 of 3,000 | 0 | no |" in table
    assert "| 12 (60) |" in table
    assert "| 35 (120) |" in table
    assert "| 2 of 3 | all | no |" in table


def test_answers_are_counted_by_their_heads() -> None:
    seen = Seen()
    note(seen, b"HTTP/1.1 200 OK\r\nx-nstarx-rescued: flaky@1.1.0\r\n\r\n", 1.0)
    note(seen, b"HTTP/1.1 200 OK\r\nx-nstarx-version: flaky@1.0.0\r\n\r\n", 2.0)
    note(seen, b"HTTP/1.1 500 Internal Server Error\r\n\r\n", 3.0)
    assert (seen.answers, seen.failed, seen.rescued_at) == (3, 1, [1.0])


def test_routes_are_valid() -> None:
    from benchmarks.bad_release import stable_alone, with_canary

    assert parse(RouteSpec, stable_alone(), "stable").split.weights == {"flaky@1.0.0": 1}
    assert parse(RouteSpec, with_canary(10), "canary").split.weights == {"flaky@1.0.0": 90, "flaky@1.1.0": 10}
