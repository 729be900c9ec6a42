"""Keys: which part of a request says whose request it is, for sticky splits, percentages and sampling."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from nstarx.spec.record import Record

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
"""Names of headers and cookies (RFC 9110, 5.6.2; RFC 6265, 4.1.1)."""
PATH = re.compile(r"/[!-:<-~]*\Z")
"""A cookie's path: printable ASCII, less the semicolon that would end it (RFC 6265, 4.1.1)."""
DOMAIN = re.compile(r"\.?[0-9A-Za-z](?:[0-9A-Za-z.-]{0,251}[0-9A-Za-z])?\Z")
LONGEST_AGE_S = 400 * 86400
"""Browsers cut longer ages to this (RFC 6265bis, 5.5)."""


def valid_token(name: str) -> str:
    """A name that headers and cookies may have. Raises ValueError with the rule."""
    if not TOKEN.match(name):
        raise ValueError(f"'{name}' is not a header or cookie name; use 1 to 128 letters, digits or '-'")
    return name


def valid_claim(path: str) -> str:
    """The way to a claim, parts joined by dots. Raises ValueError with an example."""
    if not all(path.split(".")):
        raise ValueError(f"'{path}' is not the way to a claim; write it like sub or realm_access.roles")
    return path


HeaderName = Annotated[str, AfterValidator(lambda name: valid_token(name).lower())]
"""A header's name; kept in lower case, since case means nothing there."""
CookieName = Annotated[str, AfterValidator(valid_token)]
QueryName = Annotated[str, Field(min_length=1, max_length=256)]
ClaimPath = Annotated[str, Field(max_length=256), AfterValidator(valid_claim)]


class CookieSpec(Record):
    """The cookie that tells clients apart. The gateway issues it, with a random value, to clients that bring none."""

    name: CookieName
    max_age_s: Annotated[int, Field(ge=1, le=LONGEST_AGE_S)] = 86400
    """How long clients keep it."""
    path: str = "/"
    """Clients send it with requests below this path."""
    domain: str | None = None
    """Clients send it to this domain and those below; without one, only to the host that issued it."""
    secure: bool = False
    """Clients send it over TLS only."""
    http_only: bool = True
    """Scripts of a page can't read it."""
    same_site: Literal["Strict", "Lax", "None"] = "Lax"
    """Whether clients send it with requests that other sites cause. `None` needs `secure`."""
    partitioned: bool = False
    """Clients keep one for each site that embeds this one (CHIPS). Needs `secure`."""

    @model_validator(mode="after")
    def _browsers_take_it(self) -> Self:
        """Browsers drop what breaks these rules without a word (RFC 6265bis, 5.7), and nobody would be sticky."""
        if not PATH.match(self.path):
            raise ValueError(f"path: '{self.path}' must begin with / and hold no spaces or semicolons")
        if self.domain is not None and not DOMAIN.match(self.domain):
            raise ValueError(f"domain: '{self.domain}' is not a domain name")
        wants = [word for word, given in self._secure_only().items() if given]
        if wants and not self.secure:
            raise ValueError(f"secure: must be true with {', '.join(wants)}")
        if self.name.startswith("__Host-") and (self.path != "/" or self.domain is not None):
            raise ValueError("name: a cookie called __Host-… must have path / and no domain")
        return self

    def _secure_only(self) -> dict[str, bool]:
        return {
            "same_site: None": self.same_site == "None",
            "partitioned": self.partitioned,
            "a name that begins with __Host- or __Secure-": self.name.startswith(("__Host-", "__Secure-")),
        }


class KeySpec(Record):
    """Whose request it is. Exactly one is given. A request in which it is missing or empty has no key."""

    header: HeaderName | None = None
    """The value of a header."""
    cookie: CookieSpec | None = None
    """The value of a cookie, which the gateway issues."""
    query: QueryName | None = None
    """The value of a query parameter."""
    claim: ClaimPath | None = None
    """A claim of the caller's verified token: `sub`, or parts of nested claims joined by dots."""
    client_address: bool = False
    """The address the request came from. Many users may share one."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if len(given := self._given()) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(type(self).model_fields)}; given: {', '.join(given) or 'none'}"
            )
        return self

    def _given(self) -> list[str]:
        return [name for name in type(self).model_fields if getattr(self, name)]

    def __str__(self) -> str:
        """As people say it: `header 'x-user'`."""
        if self.client_address:
            return "the client's address"
        if self.cookie:
            return f"cookie '{self.cookie.name}'"
        [source] = self._given()
        return f"{source.replace('query', 'query parameter')} '{getattr(self, source)}'"
