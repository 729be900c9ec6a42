"""Sticky keys: taken from a request, or issued to a client as a cookie."""

from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstarx.spec.key import CookieSpec, KeySpec
from router.facts import Facts
from router.sticky import issue, key_of

FACTS = Facts(
    {b"x-user": b"ada", b"x-empty": b"", b"cookie": b"seen=tuesday; blank="},
    b"/v2?user=grace&none=",
    "10.0.0.1",
    {"sub": "alan", "org": {"id": 7}, "groups": ["a"], "no": ""},
)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (KeySpec(header="X-User"), b"ada"),
        (KeySpec(cookie=CookieSpec(name="seen")), b"tuesday"),
        (KeySpec(query="user"), b"grace"),
        (KeySpec(claim="sub"), b"alan"),
        (KeySpec(claim="org.id"), b"7"),
        (KeySpec(client_address=True), b"10.0.0.1"),
    ],
)
def test_key_is_taken_from_where_the_configuration_says(spec: KeySpec, key: bytes) -> None:
    assert key_of(spec)(FACTS) == key


@pytest.mark.parametrize(
    "source",
    [
        {"header": "x-none"},
        {"header": "x-empty"},
        {"cookie": CookieSpec(name="none")},
        {"cookie": CookieSpec(name="blank")},
        {"query": "nobody"},
        {"query": "none"},
        {"claim": "groups"},
        {"claim": "org"},
        {"claim": "no"},
        {"claim": "iss"},
    ],
)
def test_missing_or_empty_value_is_no_key(source: dict[str, Any]) -> None:
    assert key_of(KeySpec(**source))(FACTS) is None


def test_request_from_an_unknown_address_has_no_key() -> None:
    assert key_of(KeySpec(client_address=True))(Facts({}, b"/")) is None


def test_plain_cookie_has_its_age_and_path_and_is_hidden_from_scripts() -> None:
    header = issue(CookieSpec(name="seen"), b"\0" * 16).header
    assert header == b"set-cookie: seen=AAAAAAAAAAAAAAAAAAAAAA; Max-Age=86400; Path=/; HttpOnly; SameSite=Lax\r\n"


def test_cookie_for_other_sites_has_every_attribute() -> None:
    cookie = CookieSpec(
        name="seen", max_age_s=60, path="/v2", domain="example.com", secure=True, http_only=False, same_site="None",
        partitioned=True,
    )  # fmt: skip
    attributes = b"; Max-Age=60; Path=/v2; Domain=example.com; Secure; SameSite=None; Partitioned\r\n"
    assert issue(cookie, b"\xff" * 3).header == b"set-cookie: seen=____" + attributes


@given(st.binary(min_size=1, max_size=32))
def test_client_that_brings_its_cookie_back_has_the_key_it_was_issued(random: bytes) -> None:
    spec = KeySpec(cookie=CookieSpec(name="seen"))
    assert spec.cookie
    issued = issue(spec.cookie, random)
    jar = SimpleCookie(issued.header.decode().removeprefix("set-cookie: ").strip())
    brought = f"other=1; seen={jar['seen'].value}".encode()
    assert key_of(spec)(Facts({b"cookie": brought}, b"/")) == issued.key
    assert issued.header.count(b"\r\n") == 1
