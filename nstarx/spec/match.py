"""Matches: which requests a rule is for."""

from ipaddress import ip_network
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from nstarx.spec.key import ClaimPath, CookieName, HeaderName, KeySpec, QueryName
from nstarx.spec.pattern import valid_pattern
from nstarx.spec.record import Record

Text = Annotated[str, Field(min_length=1)]


def valid_network(text: str) -> str:
    """A network or address, as `ipaddress` writes it. Raises ValueError with an example."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; write a network like 10.0.0.0/8 or 2001:db8::/32, or an address") from None


Network = Annotated[str, AfterValidator(valid_network)]


class StringMatch(Record):
    """What a value must be. Exactly one rule is given; a text alone means `exact`. Capitals and small letters differ.

    A value that is missing meets no rule but `present: false`.
    """

    exact: str | None = None
    """The value is this text."""
    prefix: Text | None = None
    """The value begins with this text."""
    suffix: Text | None = None
    """The value ends with this text."""
    contains: Text | None = None
    """This text stands somewhere in the value."""
    regex: Annotated[Text, AfterValidator(valid_pattern)] | None = None
    """The whole value matches this pattern of Python's `re`. Values above 512 bytes never do, and patterns that could
    take long on some value are refused."""
    present: bool | None = None
    """The value is there (true) or missing (false)."""
    one_of: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """The value is one of these texts."""
    invert: bool = False
    """True: the opposite of the rule, also for a missing value."""

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"exact": given}
        if isinstance(given, dict | cls):
            return given
        raise ValueError(f"write a text in quotes, or one of {', '.join(_rules(cls))}")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in _rules(type(self)) if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(_rules(type(self)))}; given: {', '.join(given) or 'none'}"
            )
        return self

    def __str__(self) -> str:
        """As people say it: `one that begins with 'a'`."""
        return f"anything but {self._rule()}" if self.invert else self._rule()

    def _rule(self) -> str:
        if self.present is not None:
            return "any" if self.present else "none"
        if self.one_of is not None:
            return f"one of {', '.join(map(repr, self.one_of))}"
        if self.exact is not None:
            return repr(self.exact)
        [(name, text)] = [(name, text) for name in VERBS if (text := getattr(self, name)) is not None]
        return f"one that {VERBS[name]} {text!r}"


VERBS = {"prefix": "begins with", "suffix": "ends with", "contains": "contains", "regex": "matches"}


def _rules(record: type[StringMatch]) -> list[str]:
    return [name for name in record.model_fields if name != "invert"]


class Match(Record):
    """Which requests a rule is for: those that meet every condition given. Without conditions, all."""

    headers: dict[HeaderName, StringMatch] = {}
    """Header to what its value must be."""
    query: dict[QueryName, StringMatch] = {}
    """Query parameter to what its first value must be."""
    cookies: dict[CookieName, StringMatch] = {}
    """Cookie to what its value must be."""
    claims: dict[ClaimPath, StringMatch] = {}
    """Claim of the caller's verified token (parts of nested claims joined by dots) to what its value must be. Numbers
    and booleans are compared as JSON writes them; of a list, one element must meet the rule."""
    caller: tuple[Text, ...] = Field(default=(), strict=False)
    """Names of callers: of their API key, or the claim `sub` of their token."""
    client_address: tuple[Network, ...] = Field(default=(), strict=False)
    """Networks (CIDR) or addresses the request comes from."""
    percent: Annotated[float, Field(ge=0, le=100, strict=False)] | None = None
    """Share of keys in percent, in steps of 0.0001. Raising it only adds keys. Requests without a key are in at 100
    only. Needs `key`."""
    key: KeySpec | None = None
    """What `percent` counts by. A cookie is read, and not issued."""

    @field_validator("headers", mode="before")
    @classmethod
    def _each_header_once(cls, given: Any) -> Any:
        names = [name.lower() for name in given if isinstance(name, str)] if isinstance(given, dict) else []
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is given twice; capitals mean nothing in a header's name")
        return given

    @model_validator(mode="after")
    def _percent_of_keys(self) -> Self:
        if self.percent is not None and self.key is None:
            raise ValueError("key: say what percent counts by, for example key: {header: x-user}")
        if self.key is not None and self.percent is None:
            raise ValueError("percent: is required with key")
        return self
