"""Who a caller is, as a proxy in front of the gateways has found out."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from nstarx.spec.key import HeaderName
from nstarx.spec.match import Network
from nstarx.spec.record import Record


class IdentitySpec(Record):
    """Headers by which a trusted proxy says who calls. Without a proxy that sets or removes them, anybody could write
    them."""

    caller_header: HeaderName | None = None
    """The caller's name, for `match.caller`; without it the claim `sub`."""
    claims_header: HeaderName | None = None
    """The claims of a verified token: a JSON object in base64url, as Envoy's `forward_payload_header` has it."""
    trusted_proxies: Annotated[tuple[Network, ...], Field(min_length=1, strict=False)] = ("127.0.0.0/8", "::1/128")
    """Networks or addresses whose headers are believed. What others send is passed over."""

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        if self.caller_header is None and self.claims_header is None:
            raise ValueError("give caller_header, claims_header, or both")
        if self.caller_header == self.claims_header:
            raise ValueError("claims_header: must be another header than caller_header")
        return self
