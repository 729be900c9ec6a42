"""Which replica takes the next request: load, warmth, ejection, and keys that stay where they were."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstarx.spec.balancing import BalancingSpec
from nstarx.spec.key import KeySpec
from router.balancing import Balancer, in_panic, weight
from router.ring import ring_of


class Replica:
    """A host in the hands of a test."""

    def __init__(self, name: str, load: int = 0, started_at: float = 0.0, limit: int = 100) -> None:
        self.name = name
        self.waiting = [0] * load
        self.limit = limit
        self.started_at = started_at

    def __repr__(self) -> str:
        return self.name


def balancer(*replicas: Replica, now: float = 1000.0, **spec: Any) -> Balancer[Replica]:
    if spec.get("policy") == "ring_hash":
        spec["key"] = KeySpec(header="x-user")
    made = Balancer[Replica](BalancingSpec(**spec), Random(1).random)
    for replica in replicas:
        made.join(replica, now)
    return made


def shares(made: Balancer[Replica], picks: int = 3000) -> dict[str, float]:
    """Part of the requests that each gets when none of them takes any time."""
    counts = Counter(str(made.pick()) for _ in range(picks))
    return {name: count / picks for name, count in counts.items()}


# Least request


def test_nobody_is_there() -> None:
    assert balancer().pick() is None
    assert balancer(policy="ring_hash").pick_for(b"key") is None


def test_replicas_at_rest_take_turns() -> None:
    made = balancer(Replica("a"), Replica("b"), Replica("c"))
    assert shares(made) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}


def test_less_loaded_of_two_takes_it() -> None:
    made = balancer(Replica("busy", load=3), Replica("free", load=2))
    assert shares(made) == {"free": 1.0}


def test_the_most_loaded_of_three_is_spared_and_nobody_is_left_out() -> None:
    made = balancer(Replica("a", load=9), Replica("b", load=1), Replica("c", load=2))
    got = shares(made)
    assert "a" not in got
    assert got["b"] == pytest.approx(2 / 3, abs=0.05)


@settings(deadline=None)
@given(loads=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_a_replica_with_room_is_found_wherever_it_is(loads: list[int]) -> None:
    made = balancer(*(Replica(str(n), load, limit=4) for n, load in enumerate(loads)))
    host = made.pick()
    assert (host is None) == (min(loads) == 4)
    assert host is None or len(host.waiting) < 4


def test_second_try_goes_elsewhere_to_the_least_loaded() -> None:
    a, b, c = Replica("a"), Replica("b", load=2), Replica("c", load=1)
    made = balancer(a, b, c)
    assert made.pick_other([a]) is c
    assert made.pick_other([a, c]) is b
    assert made.pick_other([a, b, c]) is None


def test_replica_that_has_left_gets_nothing() -> None:
    a, b = Replica("a"), Replica("b")
    made = balancer(a, b)
    made.leave(a, 1000.0)
    made.leave(a, 1000.0)
    assert shares(made) == {"b": 1.0}


# Ejection and panic


def test_ejected_replica_gets_nothing_until_it_returns() -> None:
    a, b, c = Replica("a"), Replica("b"), Replica("c")
    made = balancer(a, b, c)
    made.eject("a", 1000.0)
    assert shares(made) == {"b": 0.5, "c": 0.5}
    made.reinstate("a", 1000.0)
    assert set(shares(made)) == {"a", "b", "c"}


def test_everybody_is_used_when_fewer_than_half_are_left() -> None:
    replicas = [Replica(name) for name in "abcd"]
    made = balancer(*replicas)
    for count, panic in ((1, False), (2, False), (3, True), (4, True)):
        for replica in replicas[:count]:
            made.eject(replica.name, 1000.0)
        assert made.panic is panic
        assert len(shares(made)) == (4 if panic else 4 - count)


def test_without_a_threshold_nobody_may_be_left() -> None:
    made = balancer(Replica("a"), panic_threshold_percent=0.0)
    made.eject("a", 1000.0)
    assert made.pick() is None
    assert not in_panic(0, 0, 50.0)


def test_replica_that_left_while_it_was_ejected_is_as_good_as_new_when_it_comes_again() -> None:
    made = balancer(Replica("a"), Replica("b"), sick := Replica("sick"))
    made.eject("sick", 1000.0)
    made.leave(sick, 1000.0)
    made.join(sick, 1001.0)
    assert set(shares(made)) == {"a", "b", "sick"}


# Slow start


@pytest.mark.parametrize(
    ("age", "aggression", "expected"),
    [(0, 1, 0.1), (6, 1, 0.1), (30, 1, 0.5), (60, 1, 1), (90, 1, 1), (-5, 1, 0.1), (15, 2, 0.5), (30, 0.5, 0.25)],
)
def test_weight_grows_with_age_as_envoy_has_it(age: float, aggression: float, expected: float) -> None:
    assert weight(age, BalancingSpec(slow_start_s=60.0, aggression=aggression)) == pytest.approx(expected)


def test_new_replica_gets_a_small_share_that_grows_to_a_full_one() -> None:
    made = balancer(Replica("old"), Replica("older"), now=100.0, slow_start_s=60.0)
    made.join(Replica("new", started_at=100.0), 100.0)
    expected = {100.0: 0.1 / 2.1, 130.0: 0.5 / 2.5, 145.0: 0.75 / 2.75, 160.0: 1 / 3}
    for now, share in expected.items():
        made.refresh(now)
        assert made.warming == (now < 160.0)
        assert shares(made)["new"] == pytest.approx(share, rel=0.05)


def test_new_replica_that_is_busy_gets_less_than_its_share() -> None:
    made = balancer(Replica("old"), Replica("new", load=1, started_at=1000.0), slow_start_s=60.0)
    assert shares(made) == {"old": 1.0}


def test_idle_new_replica_is_not_overrun_while_the_others_are_busy() -> None:
    made = balancer(Replica("a", load=5), Replica("b", load=5), Replica("new", started_at=1000.0), slow_start_s=60.0)
    assert shares(made)["new"] == pytest.approx(0.1 / 2.1, rel=0.05)


def test_returned_replica_starts_as_slowly_as_a_new_one() -> None:
    made = balancer(Replica("a"), Replica("b"), Replica("back"), slow_start_s=60.0)
    made.eject("back", 1000.0)
    made.reinstate("back", 1030.0)
    assert shares(made)["back"] == pytest.approx(0.1 / 2.1, rel=0.05)
    made.refresh(1090.0)
    assert shares(made)["back"] == 1 / 3


def test_when_all_are_new_all_are_equal() -> None:
    made = balancer(*(Replica(name, started_at=1000.0) for name in "abc"), slow_start_s=60.0)
    assert shares(made) == {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert made.warming


@settings(deadline=None)
@given(loads=st.lists(st.integers(0, 4), min_size=1, max_size=6), warm=st.integers(0, 6))
def test_a_replica_with_room_is_found_also_while_some_warm_up(loads: list[int], warm: int) -> None:
    replicas = [Replica(str(n), load, 0.0 if n < warm else 900.0 + n, 4) for n, load in enumerate(loads)]
    host = balancer(*replicas, slow_start_s=600.0).pick()
    assert (host is None) == (min(loads) == 4)
    assert host is None or len(host.waiting) < 4


# Slow replicas


def test_replica_that_is_slow_gets_the_square_of_its_part() -> None:
    made = balancer(Replica("a"), Replica("b"), Replica("slow"))
    made.slow_down({"slow": 2.0}, 1000.0)
    assert shares(made)["slow"] == pytest.approx(0.25 / 2.25, rel=0.1)
    made.slow_down({"slow": 100.0}, 1000.0)
    assert shares(made)["slow"] == pytest.approx(1 / 101, rel=0.2)
    made.slow_down({}, 1000.0)
    assert shares(made)["slow"] == 1 / 3


def test_slow_replica_helps_out_when_the_others_have_as_much_more_to_do() -> None:
    a, b, slow = Replica("a", load=9), Replica("b", load=9), Replica("slow")
    made = balancer(a, b, slow)
    made.slow_down({"slow": 10.0}, 1000.0)
    assert shares(made)["slow"] < 0.02
    a.waiting.append(0)
    b.waiting.append(0)
    assert shares(made)["slow"] > 0.3


def test_slow_replica_is_no_different_where_latency_is_to_be_ignored() -> None:
    made = balancer(Replica("a"), Replica("slow"), latency_bias=0.0)
    made.slow_down({"slow": 10.0}, 1000.0)
    assert shares(made)["slow"] == 0.5


# Ring hash

KEYS = [b"user-%d" % n for n in range(2000)]


def owners(made: Balancer[Replica]) -> dict[bytes, str]:
    return {key: str(made.pick_for(key)) for key in KEYS}


@settings(max_examples=20, deadline=None)
@given(names=st.sets(st.text("abcdef0123456789", min_size=1), min_size=2, max_size=8), shuffle=st.randoms())
def test_replica_that_comes_or_goes_moves_its_own_keys_alone(names: set[str], shuffle: Random) -> None:
    moving, *staying = sorted(names)
    shuffle.shuffle(staying)
    replicas = [Replica(name) for name in staying]
    made = balancer(*replicas, policy="ring_hash")
    before = owners(made)
    made.join(Replica(moving), 1000.0)
    during = owners(made)
    assert {key for key in KEYS if before[key] != during[key]} == {key for key in KEYS if during[key] == moving}
    made.eject(moving, 1000.0)
    assert owners(made) == before


def test_keys_are_spread_evenly() -> None:
    counts = Counter(owners(balancer(*(Replica(str(n)) for n in range(5)), policy="ring_hash")).values())
    assert all(0.75 < count / (len(KEYS) / 5) < 1.25 for count in counts.values())


def test_order_in_which_replicas_came_does_not_matter() -> None:
    forward, backward = (balancer(*map(Replica, names), policy="ring_hash") for names in ("abcd", "dcba"))
    assert owners(forward) == owners(backward)


def test_overloaded_replica_passes_its_keys_on_to_one_and_the_same() -> None:
    replicas = {name: Replica(name, load=10) for name in "abcd"}
    made = balancer(*replicas.values(), policy="ring_hash")
    home = made.pick_for(b"key")
    assert home
    home.waiting = [0] * 15
    second = made.pick_for(b"key")
    assert second not in (None, home)
    assert all(made.pick_for(b"key") is second for _ in range(10))
    home.waiting = [0] * 14
    assert made.pick_for(b"key") is home


@settings(max_examples=50, deadline=None)
@given(
    keys=st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=200),
    replicas=st.integers(1, 7),
    factor=st.sampled_from([100, 125, 200]),
)
def test_no_replica_has_more_than_the_factor_of_the_mean(keys: list[bytes], replicas: int, factor: int) -> None:
    hosts = [Replica(str(n), limit=1000) for n in range(replicas)]
    made = balancer(*hosts, policy="ring_hash", hash_balance_factor=factor)
    for n, key in enumerate(keys, 1):
        host = made.pick_for(key)
        assert host
        host.waiting.append(0)
        assert len(host.waiting) <= -(-factor * n // (100 * replicas))


def test_without_a_factor_a_key_stays_until_its_replica_is_full() -> None:
    hosts = [Replica(name, limit=50) for name in "abc"]
    made = balancer(*hosts, policy="ring_hash", hash_balance_factor=None)
    for _ in range(50):
        host = made.pick_for(b"key")
        assert host
        host.waiting.append(0)
    assert sorted(len(host.waiting) for host in hosts) == [0, 0, 50]
    assert made.pick_for(b"key") not in (None, host)


def test_everybody_is_full() -> None:
    assert balancer(*(Replica(name, load=5, limit=5) for name in "abc"), policy="ring_hash").pick_for(b"key") is None


def test_request_without_a_key_goes_to_the_less_loaded() -> None:
    made = balancer(Replica("busy", load=3), Replica("free"), policy="ring_hash")
    assert {str(made.pick_for(None)) for _ in range(10)} == {"free"}


def test_least_request_ignores_keys() -> None:
    made = balancer(Replica("busy", load=3), Replica("free"))
    assert {str(made.pick_for(key)) for key in KEYS[:50]} == {"free"}


def test_walk_meets_every_host_once() -> None:
    ring = ring_of(["a", "b", "c"])
    for point in (0, ring.points[0], ring.points[-1], 2**64 - 1):
        walk = list(ring.walk(point))
        assert sorted(walk) == [0, 1, 2]
        assert walk[0] == ring.place(point)
