"""What callers are granted: never more than they may, and told what is left."""

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.errors import InvalidConfiguration
from nstarx.spec.rate_limit import RateLimitSpec
from nstarx.spec.record import parse
from router.rate_limit import LONGEST_KEY, RateLimited, RateLimiter, RateLimits, S

NOW = 1_000_000 * S


def limiter(requests: int = 10, window_s: int = 10, shares: int = 1, **spec: Any) -> RateLimiter:
    return RateLimiter(RateLimitSpec(requests=requests, window_s=window_s, **spec), shares)


def granted(limit: RateLimiter, key: bytes, now: int, times: int = 1) -> int:
    return sum(limit.decide(key, now).allowed for _ in range(times))


# Buckets


def test_a_caller_may_use_the_burst_at_once_and_then_its_rate() -> None:
    limit = limiter(burst=3)
    assert granted(limit, b"a", NOW, 10) == 3
    assert granted(limit, b"a", NOW + S - 1, 10) == 0
    assert granted(limit, b"a", NOW + S, 10) == 1
    assert granted(limit, b"a", NOW + 100 * S, 10) == 3


def test_burst_is_a_whole_window_unless_said_otherwise() -> None:
    assert granted(limiter(), b"a", NOW, 100) == 10


def test_callers_do_not_share() -> None:
    limit = limiter(burst=1)
    assert [granted(limit, key, NOW) for key in (b"a", b"a", b"b")] == [1, 0, 1]


def test_grant_says_what_is_left_and_when_it_is_whole_again() -> None:
    limit = limiter(burst=3)
    said = [limit.decide(b"a", NOW)[:3] for _ in range(4)]
    assert said == [(True, 2, 1), (True, 1, 2), (True, 0, 3), (False, 0, 3)]
    assert limit.decide(b"a", NOW + S // 2) == (False, 0, 3, 1)
    assert limit.decide(b"a", NOW + 3 * S).remaining == 2


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 3 * S), min_size=1, max_size=60),
    requests=st.integers(1, 20),
    window_s=st.integers(1, 20),
    burst=st.integers(1, 10),
)
def test_never_more_than_the_burst_and_the_rate_in_any_stretch_of_time(
    gaps: list[int], requests: int, window_s: int, burst: int
) -> None:
    limit, now, times = limiter(requests, window_s, burst=burst), NOW, []
    for gap in gaps:
        now += gap
        if limit.decide(b"a", now).allowed:
            times.append(now)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert (last - first + 1 - burst) * window_s * S <= requests * (times[last] - start)


@settings(deadline=None)
@given(wait=st.integers(0, 20 * S), asked=st.integers(1, 30))
def test_who_waits_as_long_as_told_is_granted(wait: int, asked: int) -> None:
    limit = limiter(7, 3, burst=4)
    granted(limit, b"a", NOW, asked)
    grant = limit.decide(b"a", NOW + wait)
    if not grant.allowed:
        assert grant.retry_after_s >= 1
        assert limit.decide(b"a", NOW + wait + grant.retry_after_s * S).allowed


# Several gateways


@pytest.mark.parametrize("shares", [1, 2, 3, 10])
def test_gateways_together_grant_the_burst_and_the_rate(shares: int) -> None:
    limits = [limiter(60, 60, shares=shares, burst=10) for _ in range(shares)]
    assert 10 - shares < sum(granted(limit, b"a", NOW, 20) for limit in limits) <= 10
    minutes = range(NOW + S, NOW + 601 * S, S)
    later = sum(granted(limit, b"a", now) for limit in limits for now in minutes)
    assert 600 - 2 * shares <= later <= 600


def test_another_gateway_comes_and_each_grants_less() -> None:
    limit = limiter(burst=4)
    limit.share_among(2)
    assert granted(limit, b"a", NOW, 10) == 2
    assert granted(limit, b"a", NOW + 2 * S, 10) == 1


# Memory


def test_caller_not_seen_for_longest_is_forgotten_first() -> None:
    limit = limiter(burst=2, max_keys=2)
    for key in (b"a", b"b", b"a", b"c"):
        assert limit.decide(key, NOW).allowed
    assert limit.forgotten == 1
    assert [granted(limit, key, NOW) for key in (b"a", b"c", b"b")] == [0, 1, 1]


def test_caller_who_asks_on_and_on_is_not_forgotten() -> None:
    limit = limiter(burst=1, max_keys=2)
    for key in (b"a", b"b", b"a", b"a", b"c"):
        limit.decide(key, NOW)
    assert granted(limit, b"a", NOW) == 0


def test_caller_who_sends_ever_new_keys_does_not_get_his_own_bucket_forgotten() -> None:
    limit = limiter(burst=10, max_keys=20)
    assert granted(limit, b"me", NOW, 20) == 10
    for other in range(1000):
        limit.decide(b"%d" % other, NOW + other)
    assert granted(limit, b"me", NOW + 1000) == 0
    assert len(limit._buckets) == 20


def test_forgetting_a_full_bucket_costs_nothing() -> None:
    limit = limiter(burst=1, max_keys=1)
    limit.decide(b"a", NOW)
    limit.decide(b"b", NOW + 5 * S)
    assert limit.forgotten == 0


def test_long_keys_are_told_apart_and_not_kept() -> None:
    limit = limiter(burst=1)
    long = b"k" * 50_000
    assert [granted(limit, key, NOW) for key in (long + b"a", long + b"b", long + b"a")] == [1, 1, 0]
    assert max(map(len, limit._buckets)) <= LONGEST_KEY


# Several limits


def two() -> RateLimits:
    return RateLimits((limiter(100, 60, name="route"), limiter(burst=2, name="caller")))


def test_answer_tells_what_is_left_as_the_draft_has_it() -> None:
    assert two().decide([None, b"a"], NOW) == (
        b'ratelimit-policy: "route";q=100;w=60, "caller";q=10;w=10\r\nratelimit: "route";r=99;t=1, "caller";r=1;t=1\r\n'
    )


def test_refused_by_one_takes_nothing_from_the_others() -> None:
    limits = two()
    for _ in range(50):
        refusal = limits.decide([None, b"a"], NOW)
    assert isinstance(refusal, RateLimited)
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "rate_limited", 1)
    assert refusal.sentence == "limit 'caller' grants 10 requests in 10 s; retry after 1 s"
    assert refusal.fields == b'ratelimit-policy: "caller";q=10;w=10\r\nratelimit: "caller";r=0;t=2\r\n'
    other = limits.decide([None, b"b"], NOW)
    assert isinstance(other, bytes)
    assert b'"route";r=97' in other


def test_those_without_a_key_are_one_caller() -> None:
    limits = two()
    answers = [limits.decide([None, None], NOW) for _ in range(3)]
    assert [isinstance(answer, RateLimited) for answer in answers] == [False, False, True]


def test_no_limits_say_nothing() -> None:
    assert RateLimits(()).decide([], NOW) == b""


def test_error_crosses_processes_whole() -> None:
    error = pickle.loads(pickle.dumps(RateLimited(RateLimitSpec(requests=1), 7, b"x")))
    assert (error.retry_after_s, error.fields, error.status) == (7, b"x", 429)


# The document


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"requests": 0}, "requests"),
        ({"requests": 1, "window_s": 0.5}, "window_s"),
        ({"requests": 1, "name": 'quo"te'}, "name"),
        ({"requests": 1, "key": {}}, "key: give exactly one of"),
        ({}, "requests: is required"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(document: Any, field: str) -> None:
    with pytest.raises(InvalidConfiguration, match=field):
        parse(RateLimitSpec, document, "rate_limit")
