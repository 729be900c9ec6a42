"""Sticky keys: taken from a request, or issued to a client as a cookie."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from nstarx.spec.key import CookieSpec, KeySpec
from router.claims import claim_text, find_claim
from router.facts import Facts

COOKIE_BYTES = 16
"""Random bytes in a cookie that the gateway issues: enough to tell all clients apart."""


def key_of(spec: KeySpec) -> Callable[[Facts], bytes | None]:
    """What takes the key from a request: None where it is missing or empty, since all such requests would be one user.

    Claims that are lists or objects are no keys.
    """
    if spec.header is not None:
        return _from_header(spec.header.encode())
    if spec.cookie is not None:
        return _from_cookie(spec.cookie.name.encode())
    if spec.query is not None:
        return _from_query(spec.query.encode())
    if spec.claim is not None:
        return _from_claim(spec.claim)
    return lambda facts: facts.client_address.encode() or None


def _from_header(name: bytes) -> Callable[[Facts], bytes | None]:
    return lambda facts: facts.headers.get(name) or None


def _from_cookie(name: bytes) -> Callable[[Facts], bytes | None]:
    return lambda facts: facts.cookies.get(name) or None


def _from_query(name: bytes) -> Callable[[Facts], bytes | None]:
    return lambda facts: facts.query.get(name) or None


def _from_claim(path: str) -> Callable[[Facts], bytes | None]:
    return lambda facts: claim_text(find_claim(facts.claims, path)) or None


ASSIGNMENT = b"x-nstarx-assignment: %b\r\n"
"""The header line that names who was assigned, without telling the key."""


def begun(salt: str) -> "blake2b":
    """What the ids of all keys with one salt begin with, to be copied."""
    return blake2b(salt.encode() + b"\0", digest_size=16)


def assignment(begun: "blake2b", key: bytes) -> bytes:
    """The id of a key: as `judging.experiment.assignment_of`, the same at every gateway."""
    id = begun.copy()
    id.update(key)
    return id.hexdigest().encode()


class Issued(NamedTuple):
    """A new key, and the header line (with its CRLF) that makes the client bring it back."""

    key: bytes
    header: bytes


def issue(cookie: CookieSpec, random: bytes) -> Issued:
    """A cookie with a new key for a client that brought none (RFC 6265, 4.1). 16 random bytes tell clients apart.

    The key is in base64url, which needs no quotes. It says nothing about the client, and clients may choose another:
    it decides which version answers, never what anybody may see.
    """
    key = urlsafe_b64encode(random).rstrip(b"=")
    before, after = _around(cookie)
    return Issued(key, before + key + after)


@lru_cache(maxsize=1024)
def _around(cookie: CookieSpec) -> tuple[bytes, bytes]:
    """The header line before and after the key."""
    attributes = {
        f"Max-Age={cookie.max_age_s}": True,
        f"Path={cookie.path}": True,
        f"Domain={cookie.domain}": cookie.domain is not None,
        "Secure": cookie.secure,
        "HttpOnly": cookie.http_only,
        f"SameSite={cookie.same_site}": True,
        "Partitioned": cookie.partitioned,
    }
    after = "".join(f"; {attribute}" for attribute, given in attributes.items() if given)
    return f"set-cookie: {cookie.name}=".encode(), f"{after}\r\n".encode()
