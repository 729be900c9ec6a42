"""Keys: whose request it is."""

from typing import Any

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.key import CookieSpec, KeySpec
from nstarx.spec.record import parse


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"header": "X-User"}, "header 'x-user'"),
        ({"cookie": {"name": "seen"}}, "cookie 'seen'"),
        ({"query": "user"}, "query parameter 'user'"),
        ({"claim": "realm_access.roles"}, "claim 'realm_access.roles'"),
        ({"client_address": True}, "the client's address"),
    ],
)
def test_one_source_makes_a_key_that_says_what_it_is(document: dict[str, Any], sentence: str) -> None:
    assert str(parse(KeySpec, document, "key")) == sentence


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ({}, "given: none"),
        ({"client_address": False}, "given: none"),
        ({"header": "a", "query": "b"}, "given: header, query"),
        ({"header": "a b"}, "header: 'a b' is not a header or cookie name"),
        ({"header": ""}, "header: '' is not"),
        ({"query": ""}, "query: "),
        ({"claim": "a..b"}, "claim: 'a..b' is not the way to a claim"),
        ({"cookie": {"name": "a;b"}}, "cookie.name: "),
        ({"cookie": {}}, "cookie.name: is required"),
        ({"cookie": {"name": "a", "max_age_s": 0}}, "cookie.max_age_s: "),
        ({"cookie": {"name": "a", "max_age_s": 500 * 86400}}, "cookie.max_age_s: "),
        ({"cookie": {"name": "a", "path": "x"}}, "path: 'x' must begin with /"),
        ({"cookie": {"name": "a", "path": "/;secure"}}, "path: "),
        ({"cookie": {"name": "a", "path": "/\r\nx: y"}}, "path: "),
        ({"cookie": {"name": "a", "domain": "a.de; x"}}, "domain: "),
        ({"cookie": {"name": "a", "same_site": "lax"}}, "cookie.same_site: "),
        ({"cookie": {"name": "a", "same_site": "None"}}, "secure: must be true with same_site: None"),
        ({"cookie": {"name": "a", "partitioned": True}}, "secure: must be true with partitioned"),
        ({"cookie": {"name": "__Secure-a"}}, "secure: must be true with a name"),
        ({"cookie": {"name": "__Host-a", "secure": True, "path": "/v2"}}, "must have path / and no domain"),
        ({"cookie": {"name": "a", "maxAge": 1}}, "cookie.maxAge: unknown key"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_with_its_field(document: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        parse(KeySpec, document, "routes.yaml")
    assert part in refused.value.sentence


def test_cookie_lives_a_day_and_everywhere_unless_told_otherwise() -> None:
    cookie = CookieSpec(name="seen")
    assert (cookie.max_age_s, cookie.path, cookie.domain, cookie.secure) == (86400, "/", None, False)
    assert (cookie.http_only, cookie.same_site) == (True, "Lax")
