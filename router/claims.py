"""Claims of a verified token (RFC 7519, 4), as matching and keys read them."""

from collections.abc import Mapping
from typing import Any

import orjson


def find_claim(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at the end of a path whose parts are joined by dots, or None. A claim whose own name has the dots
    (`https://example.com/tenant`) goes first."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def claim_text(value: Any) -> bytes | None:
    """A text as it is, a number or boolean as JSON writes it; None for what is neither."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return orjson.dumps(value) if isinstance(value, int | float) and -(2**63) <= value < 2**64 else None


def claim_texts(value: Any) -> list[bytes]:
    """The texts of a claim that may be a list, such as `aud`, groups or roles. Objects and null have none."""
    texts = map(claim_text, value if isinstance(value, list | tuple) else (value,))
    return [text for text in texts if text is not None]
