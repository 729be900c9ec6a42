"""Facts: what a request offers to matching and to keys, parsed when first asked for, and once."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

MOST_PARAMETERS = 256
MOST_COOKIES = 256
"""What a request has beyond these stays unread, so that its head bounds what reading it costs."""

NO_CLAIMS: Mapping[str, Any] = {}


class Facts:
    """What a request says about itself and its caller.

    `headers` has names in lower case. `url` is the request's target as it came, query and all. `claims` and `caller`
    are what access control has verified; a token that nobody has verified is never read. `caller` is the name of the
    API key, or the claim `sub`. `client_address` is empty where it is unknown.
    """

    __slots__ = (
        "_cookies", "_query", "caller", "choose", "claims", "client_address", "decided_by", "decision", "headers",
        "url",
    )  # fmt: skip

    choose: Any
    """What chooses a version for such requests, once `decided_by` has found it."""
    decision: Any
    """What it chooses, if that is the same each time."""

    def __init__(
        self,
        headers: dict[bytes, bytes],
        url: bytes,
        client_address: str = "",
        claims: Mapping[str, Any] = NO_CLAIMS,
        caller: str | None = None,
    ) -> None:
        self.headers = headers
        self.url = url
        self.client_address = client_address
        self.claims = claims
        self.caller = caller
        self.decided_by: Any = None
        self._query: dict[bytes, bytes] | None = None
        self._cookies: dict[bytes, bytes] | None = None

    @property
    def query(self) -> dict[bytes, bytes]:
        """Query parameters, decoded; of several with one name, the first."""
        query = self._query
        if query is None:
            query = self._query = read_query(self.url)
        return query

    @property
    def cookies(self) -> dict[bytes, bytes]:
        """Cookies; of several with one name, the first."""
        cookies = self._cookies
        if cookies is None:
            cookies = self._cookies = read_cookies(self.headers.get(b"cookie", b""))
        return cookies


def read_query(url: bytes) -> dict[bytes, bytes]:
    """The parameters of a URL's query as forms write them (WHATWG URL, 5.1): `+` and `%20` are spaces."""
    found: dict[bytes, bytes] = {}
    text = url.partition(b"#")[0].partition(b"?")[2]
    for part in text.split(b"&", MOST_PARAMETERS)[:MOST_PARAMETERS]:
        name, _, value = part.partition(b"=")
        if part and (name := _decoded(name)) not in found:
            found[name] = _decoded(value)
    return found


def read_cookies(header: bytes) -> dict[bytes, bytes]:
    """The cookies of a `cookie` header, leniently (RFC 6265, 5.4): parts without `=` or name are left out, and so are
    quotes around a value."""
    found: dict[bytes, bytes] = {}
    for part in header.split(b";", MOST_COOKIES)[:MOST_COOKIES]:
        name, equals, value = part.partition(b"=")
        name = name.strip()
        if equals and name and name not in found:
            found[name] = _unquoted(value.strip())
    return found


def _decoded(text: bytes) -> bytes:
    if b"%" in text or b"+" in text:
        return unquote_to_bytes(text.replace(b"+", b" "))
    return text


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
