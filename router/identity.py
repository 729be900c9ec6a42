"""Who calls, as a trusted proxy says it. Tokens themselves are never read: nobody here has verified them."""

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from nstarx.errors import InvalidRequest, NStarXError
from nstarx.spec.identity import IdentitySpec
from router.addresses import within
from router.facts import NO_CLAIMS, Facts

LONGEST_CALLER = 256
LONGEST_CLAIMS = 16 << 10
"""Bytes of the headers; longer ones are refused."""
BASE64URL = re.compile(rb"[A-Za-z0-9_-]+={0,2}\Z")


class Identity:
    """Reads callers and claims from the headers of requests that come through a trusted proxy."""

    def __init__(self, spec: IdentitySpec) -> None:
        self._caller = spec.caller_header.encode() if spec.caller_header else None
        self._claims = spec.claims_header.encode() if spec.claims_header else None
        self._trusted = within(spec.trusted_proxies)

    def tell(self, facts: Facts) -> NStarXError | None:
        """Let the facts of a request know who calls. Why it is refused, if it is: where the proxy says it in a wrong
        way, rules must not be asked with less than was said."""
        if not self._trusted(facts.client_address):
            return None
        try:
            self._read(facts)
        except InvalidRequest as error:
            return error
        return None

    def _read(self, facts: Facts) -> None:
        claims = facts.headers.get(self._claims) if self._claims else None
        caller = facts.headers.get(self._caller) if self._caller else None
        if claims:
            facts.claims = read_claims(claims)
        if caller:
            facts.caller = read_caller(caller)
        elif isinstance(subject := facts.claims.get("sub"), str):
            facts.caller = subject

    def doubt(self, headers: Sequence[tuple[bytes, bytes]]) -> NStarXError | None:
        """Why a request is refused in which one of the headers is there twice: a proxy that adds its own to a client's
        leaves it open which of them counts."""
        names = [name for name, _ in headers]
        for name in (self._caller, self._claims):
            if name and names.count(name) > 1:
                return InvalidRequest(f"header {name.decode()} is there more than once; the proxy has to replace it")
        return None


def read_caller(header: bytes) -> str:
    """A caller's name. Raises InvalidRequest."""
    try:
        name = header.decode()
    except UnicodeDecodeError:
        name = ""
    if len(header) > LONGEST_CALLER or not name.isprintable() or not name:
        raise InvalidRequest(f"the caller's name must be printable UTF-8 of at most {LONGEST_CALLER} bytes")
    return name


@lru_cache(maxsize=256)
def read_claims(header: bytes) -> Mapping[str, Any]:
    """The claims in a header. Raises InvalidRequest."""
    if len(header) > LONGEST_CLAIMS or not BASE64URL.match(header):
        raise InvalidRequest(f"the claims must be a JSON object in base64url, at most {LONGEST_CLAIMS} bytes")
    try:
        claims = orjson.loads(urlsafe_b64decode(header.rstrip(b"=") + b"=="))
    except ValueError:
        raise InvalidRequest("the claims must be a JSON object in base64url; what came is not JSON") from None
    if not isinstance(claims, dict):
        raise InvalidRequest("the claims must be a JSON object in base64url; what came is no object")
    return claims or NO_CLAIMS
