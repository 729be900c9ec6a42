"""Claims of a verified token, as matching and keys read them."""

from typing import Any

import pytest

from router.claims import claim_text, claim_texts, find_claim

CLAIMS = {"sub": "ada", "realm": {"roles": ["a", "b"]}, "https://example.com/tenant": "acme", "level": 3}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sub", "ada"),
        ("realm.roles", ["a", "b"]),
        ("https://example.com/tenant", "acme"),
        ("realm.none", None),
        ("sub.length", None),
        ("nothing", None),
    ],
)
def test_claim_is_found_at_the_end_of_its_path(path: str, found: Any) -> None:
    assert find_claim(CLAIMS, path) == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ä", "ä".encode()),
        (3, b"3"),
        (1.5, b"1.5"),
        (True, b"true"),
        (None, None),
        ({}, None),
        (["a"], None),
        (float("nan"), None),
        (10**30, None),
        ("\ud800", b"?"),
    ],
)
def test_plain_claims_have_a_text_and_others_none(value: Any, text: bytes | None) -> None:
    assert claim_text(value) == text


def test_list_has_the_texts_of_its_plain_elements() -> None:
    assert claim_texts(["a", 1, None, {}, False]) == [b"a", b"1", b"false"]
    assert claim_texts("a") == [b"a"]
    assert claim_texts(None) == claim_texts({}) == []
