"""Which requests are copied to a shadow."""

from hypothesis import given
from hypothesis import strategies as st

from nstarx.spec.key import KeySpec
from nstarx.spec.shadow import ShadowSpec
from router.facts import Facts
from router.sampling import sampler

USER = KeySpec(header="x-user")


def facts(user: str | None = None) -> Facts:
    return Facts({b"x-user": user.encode()} if user else {}, b"/")


def copied(percent: float, salt: str = "iris", users: int = 1000) -> set[int]:
    chosen = sampler(ShadowSpec(version="iris@1.1.0", percent=percent, key=USER), salt)
    return {user for user in range(users) if chosen(facts(f"user-{user}"))}


@given(st.floats(0.1, 100), st.integers(1, 500))
def test_without_a_key_requests_are_counted_out_exactly(percent: float, requests: int) -> None:
    chosen = sampler(ShadowSpec(version="iris@1.1.0", percent=percent), "iris")
    assert abs(sum(chosen(facts()) for _ in range(requests)) - requests * percent / 100) <= 1


def test_requests_without_their_key_are_counted_out() -> None:
    chosen = sampler(ShadowSpec(version="iris@1.1.0", percent=10, key=USER), "iris")
    assert abs(sum(chosen(facts()) for _ in range(200)) - 20) <= 1


def test_raising_the_share_only_adds_keys() -> None:
    few, more, all_of_them = copied(10), copied(30), copied(100)
    assert few < more < all_of_them == set(range(1000))
    assert 60 < len(few) < 140


def test_shadows_of_two_routes_have_different_users() -> None:
    assert copied(50, "iris") != copied(50, "digits")
